"""From the trained prior to the integer prior that codes files."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bkcodec.config import LEVELS
from bkcodec.context import EXCESS_BITS, ContextPrior
from bkcodec.entropy import Tables
from bkcodec.exact import Cells, Numbers
from bkcodec.models.compression import BkSdmCompression
from bkcodec.tables import Floats, build_rows, build_tables, integer_weights
from bkcodec.train.context import FINE, ONE, PER_OCTAVE, SCALES, ContextNetwork
from bkcodec.walk import FRACTIONS, Part

RARE = 5e-4  # a residual that is non-zero less often is not coded
PSEUDO_COUNTS = 100.0  # weight of the logistic distribution against what was counted
REACH = 9.0  # tables reach this many scales on each side, and 3 symbols


@torch.no_grad()
def freeze(model: BkSdmCompression, prior: ContextNetwork, first: Tables) -> ContextPrior:
    """The integer prior with logistic tables, as training assumes.

    Args:
        model: for its quantisation steps.
        prior: trained.
        first: tables [levels, channels of the first group] of the first phase.
    """
    device = prior.spread.device
    ladder = torch.linspace(0, 1, LEVELS, device=device)
    arrays = prior.integers(model.quantiser.step(ladder)[:, :, 0, 0])
    arrays |= logistic_rows().arrays("rows")
    arrays |= _excess().arrays("excess")
    arrays["coded"] = np.ones((LEVELS, len(prior.order)), np.uint8)
    return ContextPrior(arrays, first)


@torch.no_grad()
def learned_tables(model: BkSdmCompression, prior: ContextNetwork) -> Tables:
    """Tables of the first phase from the learned density."""
    n = prior.config.groups[0]
    ladder = torch.linspace(0, 1, LEVELS, device=prior.spread.device)
    steps = model.quantiser.step(ladder)[:, prior.order[:n], 0, 0].double().cpu().numpy()

    def cumulative(channel: int, z: Floats) -> Floats:
        v = torch.from_numpy(z).float().to(prior.spread.device).expand(n, -1)
        return prior.first.cumulative(v)[channel].cpu().numpy()

    bounds = 12 * np.asarray(prior.spread[:n].cpu(), np.float64)
    return build_tables(cumulative, steps, bounds)


class Counter:
    """Counts which symbols occur, to replace assumed tables by measured ones."""

    def __init__(self, prior: ContextPrior) -> None:
        self.prior = prior
        self.reach = np.array([_reach(i // FRACTIONS) for i in range(SCALES * FRACTIONS)])
        ends = np.cumsum(2 * self.reach + 1)
        self.middle = ends - self.reach - 1  # where residual 0 of each table is counted
        self.counts = np.zeros(ends[-1], np.int64)

    def add(self, symbols: NDArray[np.floating[Any]], level: int) -> None:
        """Count the symbols [C, h, w] of one picture."""
        coder = self.prior.level(level)
        wanted = symbols[self.prior.order].astype(np.int32)

        def first(tables: object, cells: Cells) -> Numbers:
            del tables
            return wanted[: self.prior.groups[0], cells[0], cells[1]].T

        def code(part: Part) -> Numbers:
            values = wanted[part.channels[None], part.cells[0][:, None], part.cells[1][:, None]]
            reach = self.reach[part.tables]
            found = self.middle[part.tables] + (values - part.mean).clip(-reach, reach)
            self.counts += np.bincount(found.ravel(), minlength=len(self.counts))
            return values

        coder.walk(symbols.shape[1], symbols.shape[2], first, code)

    def rows(self) -> Tables:
        """Tables of what was counted, with some weight of the logistic ones."""

        def probabilities(scale: int, fraction: int) -> Floats:
            row = scale * FRACTIONS + fraction
            middle, reach = self.middle[row], self.reach[row]
            counts = self.counts[middle - reach : middle + reach + 1]
            assumed = _logistic(scale, fraction)
            return (counts + PSEUDO_COUNTS * assumed) / (counts.sum() + PSEUDO_COUNTS)

        return build_rows(probabilities, SCALES, FRACTIONS, RARE)


@lru_cache
def logistic_rows() -> Tables:
    """The grid of logistic tables."""
    return build_rows(_logistic, SCALES, FRACTIONS, RARE)


def _reach(scale: int) -> int:
    return int(np.ceil(REACH * 2 ** ((scale - ONE) / PER_OCTAVE))) + 3


def _logistic(scale: int, fraction: int) -> Floats:
    """Probabilities of residuals -reach..reach around the rounded mean, tails included."""
    width = 2 ** ((scale - ONE) / PER_OCTAVE)
    mean = (fraction - FRACTIONS // 2) / FRACTIONS if scale < FINE else 0.0
    reach = _reach(scale)
    edges = (np.arange(-reach, reach) + 0.5 - mean) / width
    below = np.concatenate([[0.0], 1 / (1 + np.exp(-edges)), [1.0]])
    result: Floats = np.diff(below)
    return result


def _excess() -> Tables:
    """How many bits an excess has: half as likely with every bit."""
    weights = integer_weights(0.5 ** np.arange(EXCESS_BITS + 1))
    return Tables(np.array([[len(weights)]], np.uint16), np.zeros((1, 1), np.int16), weights)
