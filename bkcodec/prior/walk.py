"""The walk of the context prior over z: its parts, in the order in which they are coded.

``context`` says what a prior is; here its symbols become strings, and strings symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.prior.arrays import PHASES, phase_map
from bkcodec.prior.exact import (
    FEATURE_MAX,
    CellLevels,
    Cells,
    Features,
    Floats,
    Network,
    Numbers,
    Whole,
    bands,
    convolve,
)
from bkcodec.prior.parts import SYMBOL_MAX, FirstPart, Part, PredictedPart
from bkcodec.prior.tables import RangeDecoder, RangeEncoder, Symbols

if TYPE_CHECKING:
    from bkcodec.prior.context import ContextPrior

FRACTIONS = 16  # means are in 1/16 symbols
GAIN_SHIFT = 12


@dataclass(frozen=True, slots=True, eq=False)
class LevelPrior:
    """The context prior at one quality level, or at one for each cell: a ``SymbolCoder``."""

    prior: ContextPrior
    levels: int | NDArray[np.uint8]  # [h, w]

    def encode(self, symbols: NDArray[Any]) -> tuple[bytes, Symbols]:
        """See ``SymbolCoder``. Where the prior is sure enough, a symbol is not coded."""
        encoder, walk = RangeEncoder(), self.walk(*symbols.shape[1:])
        for part in walk:
            part.write(encoder, symbols)
        return encoder.to_bytes(), walk.symbols

    def likelihoods(self, symbols: NDArray[Any]) -> tuple[Symbols, NDArray[np.float32]]:
        """See ``SymbolCoder``."""
        likelihoods, walk = np.ones(symbols.shape, np.float32), self.walk(*symbols.shape[1:])
        for part in walk:
            part.enter(part.weigh(symbols), likelihoods)
        return walk.symbols, likelihoods

    def decode(self, data: bytes, height: int, width: int) -> Symbols:
        """See ``SymbolCoder``."""
        decoder, walk = RangeDecoder(data), self.walk(height, width)
        for part in walk:
            part.read(decoder)
        decoder.finish()
        return walk.symbols

    def walk(self, height: int, width: int) -> Walk:
        """All parts of z of so many cells; each needs its values before the next one comes."""
        return Walk(self.prior, self.levels, height, width)


class Walk:
    """Goes over all parts in coding order; what has been seen predicts what comes.

    Attributes:
        symbols: int16 [C, h, w], of the parts that were visited.
    """

    def __init__(
        self, prior: ContextPrior, levels: int | NDArray[np.uint8], height: int, width: int
    ) -> None:
        self.prior, self.levels = prior, levels
        self.symbols: Symbols = np.zeros((prior.n_channels, height, width), np.int16)

    def __iter__(self) -> Iterator[Part]:
        prior, (height, width) = self.prior, self.symbols.shape[1:]
        coded = prior.coded[np.unique(self.levels)].any(axis=0)
        everywhere = tuple(np.indices((height, width)).reshape(2, -1))
        spans = list(zip(prior.starts, prior.ends, strict=True))
        while spans and not coded[slice(*spans[-1])].any():
            spans.pop()
        totals = [np.zeros((height * width, prior.hidden), np.float32) for _ in spans]
        for g, (begin, end) in enumerate(spans):
            total = totals.pop(0)
            channels = begin + np.flatnonzero(coded[begin:end])
            phases = PHASES[prior.phases[g]]
            border = max(phase.reach for phase in phases)
            shape = (height + 2 * border, width + 2 * border, 2 * (end - begin))
            features = np.zeros(shape, np.int8)
            phase_of = phase_map(len(phases), height, width).ravel()
            for p, phase in enumerate(phases):
                where = np.flatnonzero(phase_of == p)
                cells = everywhere[0][where], everywhere[1][where]
                levels = self.levels if isinstance(self.levels, int) else self.levels[cells]
                part: Part
                if (g, p) == (0, 0):
                    part = FirstPart(prior.first.at(levels), prior.order[begin:end], cells)
                else:
                    network, sums = prior.networks[g, p], total[where]
                    if p:
                        near = _trimmed(features, border - phase.reach)
                        convolve(near, cells, network.first.weight, [sums], phase.reach)
                    part = self._predicted(network, sums, cells, levels, channels, begin)
                yield part
                values = part.values[:, channels] if (g, p) == (0, 0) else part.values
                self.symbols[prior.order[channels, None], cells[0], cells[1]] = values.T
                inner = _trimmed(features, border)
                self._add_features(inner, values, cells, levels, channels, begin)
            outgoing = prior.shared[g][:, : prior.hidden * len(totals)]
            convolve(_trimmed(features, border - 1), everywhere, outgoing, totals)

    def _predicted(
        self,
        network: Network,
        sums: Floats,
        cells: Cells,
        levels: CellLevels,
        channels: Whole,
        begin: int,
    ) -> PredictedPart:
        """From a network's first sums [cells, hidden] to means and tables of the coded channels."""
        rounded = np.empty((len(sums), len(channels)), np.int32)
        tables = np.empty(rounded.shape, np.uint16)  # 16 bits are sorted fastest
        for band in bands(len(sums)):
            some = _cut(levels, band)
            outputs = network(sums[band], some)
            rounded[band], tables[band] = self._distributions(outputs, some, channels, begin)
        return PredictedPart(self.prior, self.prior.order[channels], cells, rounded, tables)

    def _distributions(
        self, outputs: Whole, levels: CellLevels, channels: Whole, begin: int
    ) -> tuple[Whole, Whole]:
        """Outputs [cells, 2 * group] -> rounded means and table indices of the coded channels."""
        prior = self.prior
        mean, scale = np.split(outputs, 2, axis=1)
        mean, scale = mean[:, channels - begin], scale[:, channels - begin]
        half = 1 << (GAIN_SHIFT - 1)
        limit = FRACTIONS * SYMBOL_MAX
        mean = (mean * _at(prior.mean_gain, levels, channels) + half) >> GAIN_SHIFT
        mean, scale = mean.clip(-limit, limit), scale.clip(0, prior.n_scales - 1)
        rounded = (mean + FRACTIONS // 2) // FRACTIONS
        fraction = mean - FRACTIONS * rounded + FRACTIONS // 2
        fraction = np.where(scale < prior.fine, fraction, FRACTIONS // 2)
        coded = _at(prior.coded, levels, channels)
        return rounded * coded, np.where(coded, scale * FRACTIONS + fraction, len(prior.rows))

    def _add_features(
        self,
        features: Features,
        values: Numbers,
        cells: Cells,
        levels: CellLevels,
        channels: Whole,
        begin: int,
    ) -> None:
        """Enter symbols [cells, channels] into a group's features [h, w, 2 * group]."""
        half, position = 1 << (GAIN_SHIFT - 1), 2 * (channels - begin)
        for band in bands(len(values)):
            part = values[band].astype(np.int64)
            rows = np.zeros((len(part), features.shape[2]), np.int8)
            gain = _at(self.prior.gain, _cut(levels, band), channels)
            scaled = (part * gain + half) >> GAIN_SHIFT
            rows[:, position] = scaled.clip(-FEATURE_MAX, FEATURE_MAX)
            rows[:, position + 1] = self.prior.magnitude[np.abs(part).clip(max=255)]
            features[cells[0][band], cells[1][band]] = rows


def _cut(levels: CellLevels, band: slice) -> CellLevels:
    return levels if isinstance(levels, int) else levels[band]


def _at(rows: NDArray[Any], levels: CellLevels, channels: Whole) -> NDArray[Any]:
    """Rows [levels, C] at a level, [channels], or at those of cells, [n, channels]."""
    picked: NDArray[Any] = rows[
        (levels, channels) if isinstance(levels, int) else (levels[:, None], channels)
    ]
    return picked


def _trimmed(features: Features, by: int) -> Features:
    """Features without so much of their border."""
    return features[by : features.shape[0] - by, by : features.shape[1] - by]
