"""Entropy tables counted over the symbols that an encoder would send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bkcodec.models.compression import BkSdmCompression
from bkcodec.options import LEVELS
from bkcodec.prior.build import Reals, build_rows, build_tables, laplace_cumulative
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.exact import FRACTIONS
from bkcodec.prior.parts import PredictedPart
from bkcodec.prior.tables import Tables
from bkcodec.train.prior.freeze import RARE_RESIDUAL, freeze, logistic, table_reach
from bkcodec.train.prior.network import SCALES, ContextNetwork

SAMPLES = 200_000  # cells of z per channel that the tables are counted over
COUNTED_LEVELS = 4  # a photo, when the context prior's tables are counted
TAIL_SHARE = 0.01  # weight of a wide Laplace distribution, for what the photos did not show
HEADROOM = 1.5  # tables reach this much further than the largest value seen
PSEUDO_COUNTS = 100.0  # weight of the logistic distribution against what was counted


@torch.inference_mode()
def count_tables(
    model: BkSdmCompression, latents: list[Tensor], network: ContextNetwork | None
) -> Tables | ContextPrior:
    """The prior that codes files: factorized, or with a trained network the context prior.

    ``latents``: y [1, latent, ., .] of some training photos.
    """
    planes = [model.h_a(y)[0].numpy() for y in latents]
    steps = model.quantiser.all_steps().numpy()
    factorized = _count_channels(planes, steps)
    if network is None:
        return factorized
    n = network.config.groups[0]
    first = _columns(factorized, network.order[:n].tolist())
    coded = factorized.lengths[:, network.order.numpy()] > 1
    assumed = freeze(model, network, first, coded)
    counter = Counter(assumed)
    for index, z in enumerate(planes):
        for level in _some_levels(index):
            counter.add(np.rint(z / steps[level][:, None, None]), level)
    return ContextPrior(assumed.arrays | counter.rows().arrays("rows"), first)


def _count_channels(planes: list[NDArray[np.float32]], steps: Reals) -> Tables:
    """Factorized tables: z of each channel, cut at the bin edges of each level."""
    rng = np.random.default_rng(0)
    drawn, per_photo = [], SAMPLES // len(planes) + 1
    for z in planes:
        flat = z.reshape(len(z), -1)
        drawn.append(flat[:, rng.permutation(flat.shape[1])[:per_photo]])
    samples = np.sort(np.concatenate(drawn, axis=1), axis=1)
    tail = laplace_cumulative(1.5 * samples.std(axis=1))

    def cumulative(channel: int, z: Reals) -> Reals:
        counted = np.searchsorted(samples[channel], z) / samples.shape[1]
        return (1 - TAIL_SHARE) * counted + TAIL_SHARE * tail(channel, z)

    return build_tables(cumulative, steps, HEADROOM * np.abs(samples).max(axis=1))


def _columns(tables: Tables, channels: list[int]) -> Tables:
    """The tables of some channels, in this order."""
    rows = [tables.level(i).channels[c].weights for i in range(tables.n_levels) for c in channels]
    return Tables(tables.lengths[:, channels], tables.low[:, channels], np.concatenate(rows))


def _some_levels(index: int) -> Iterator[int]:
    """Levels at even distances; all levels have their turn over the photos."""
    distance = LEVELS / COUNTED_LEVELS
    offset = (index * 0.618) % 1
    return (int((k + offset) * distance) for k in range(COUNTED_LEVELS))


class Counter:
    """Counts which symbols occur, to replace assumed tables by measured ones."""

    def __init__(self, prior: ContextPrior) -> None:
        self.prior = prior
        self.reach = np.array([table_reach(i // FRACTIONS) for i in range(SCALES * FRACTIONS)])
        ends = np.cumsum(2 * self.reach + 1)
        self.middle = ends - self.reach - 1  # where residual 0 of each table is counted
        self.counts = np.zeros(ends[-1], np.int64)

    def add(self, symbols: NDArray[np.floating[Any]], level: int) -> None:
        """Count the symbols [C, h, w] of one picture."""
        walk = self.prior.level(level).walk(*symbols.shape[1:])
        rows = walk.rows_of(symbols)
        for part in walk:
            part.values = part.of(rows).astype(np.int32)
            if isinstance(part, PredictedPart):
                reach = self.reach[part.tables]
                index = self.middle[part.tables] + (part.values - part.mean).clip(-reach, reach)
                self.counts += np.bincount(index.ravel(), minlength=len(self.counts))

    def rows(self) -> Tables:
        """Tables of what was counted, with some weight of the logistic ones."""

        def probabilities(scale: int, fraction: int) -> Reals:
            row = scale * FRACTIONS + fraction
            middle, reach = self.middle[row], self.reach[row]
            counts = self.counts[middle - reach : middle + reach + 1]
            assumed = logistic(scale, fraction)
            return (counts + PSEUDO_COUNTS * assumed) / (counts.sum() + PSEUDO_COUNTS)

        return build_rows(probabilities, SCALES, FRACTIONS, RARE_RESIDUAL)
