"""From the trained prior to the integer prior that codes files."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from bkcodec.models.compression import BkSdmCompression
from bkcodec.options import LEVELS
from bkcodec.prior.build import Reals, build_rows, build_tables, integer_weights
from bkcodec.prior.context import EXCESS_BITS, ContextPrior
from bkcodec.prior.exact import FRACTIONS
from bkcodec.prior.tables import Tables
from bkcodec.train.prior.network import FINE, ONE, PER_OCTAVE, SCALES, ContextNetwork

RARE_RESIDUAL = 5e-4  # a residual that is non-zero less often is not coded
REACH = 9.0  # tables reach this many scales on each side, and 3 symbols


@torch.no_grad()
def freeze(
    model: BkSdmCompression,
    prior: ContextNetwork,
    first: Tables,
    coded: NDArray[np.bool_] | None = None,
) -> ContextPrior:
    """The integer prior with logistic tables, as training assumes.

    Args:
        model: for its quantisation steps.
        prior: trained.
        first: tables [levels, channels of the first group] of the first phase.
        coded: [levels, C] in coding order, which channels are coded; without it all are.
    """
    if coded is None:
        coded = np.ones((LEVELS, len(prior.order)), bool)
    arrays = prior.integers(model.quantiser.all_steps())
    arrays |= logistic_rows().arrays("rows")
    arrays |= _excess().arrays("excess")
    arrays["coded"] = coded.astype(np.uint8)
    return ContextPrior(arrays, first)


@torch.no_grad()
def learned_tables(model: BkSdmCompression, prior: ContextNetwork) -> Tables:
    """Tables of the first phase from the learned density."""
    n = prior.config.groups[0]
    steps = model.quantiser.all_steps()[:, prior.order[:n]].double().cpu().numpy()

    def cumulative(channel: int, z: Reals) -> Reals:
        v = torch.from_numpy(z).float().to(prior.spread.device).expand(n, -1)
        return prior.first.cumulative(v)[channel].cpu().numpy()

    bounds = 12 * np.asarray(prior.spread[:n].cpu(), np.float64)
    return build_tables(cumulative, steps, bounds)


@lru_cache
def logistic_rows() -> Tables:
    """The grid of logistic tables."""
    return build_rows(logistic, SCALES, FRACTIONS, RARE_RESIDUAL)


def table_reach(scale: int) -> int:
    """How far the table of a scale index reaches from its middle, in symbols."""
    return int(np.ceil(REACH * 2 ** ((scale - ONE) / PER_OCTAVE))) + 3


def logistic(scale: int, fraction: int) -> Reals:
    """Probabilities of residuals -reach..reach around the rounded mean, tails included."""
    width = 2 ** ((scale - ONE) / PER_OCTAVE)
    mean = (fraction - FRACTIONS // 2) / FRACTIONS if scale < FINE else 0.0
    reach = table_reach(scale)
    edges = (np.arange(-reach, reach) + 0.5 - mean) / width
    below = np.concatenate([[0.0], 1 / (1 + np.exp(-edges)), [1.0]])
    result: Reals = np.diff(below)
    return result


def _excess() -> Tables:
    """How many bits an excess has: half as likely with every bit."""
    weights = integer_weights(0.5 ** np.arange(EXCESS_BITS + 1))
    return Tables(np.array([[len(weights)]], np.uint16), np.zeros((1, 1), np.int16), weights)
