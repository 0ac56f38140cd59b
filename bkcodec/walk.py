"""The walk of the context prior over z: the parts that are coded at once, in their order.

``context`` says what a prior is; here its symbols become strings, and strings symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.entropy import (
    LevelTables,
    MappedTables,
    RangeDecoder,
    RangeEncoder,
    Symbols,
    Table,
)
from bkcodec.errors import FormatError
from bkcodec.exact import (
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
from bkcodec.layout import PHASES, phase_map

if TYPE_CHECKING:
    from bkcodec.context import ContextPrior

FRACTIONS = 16  # means are in 1/16 symbols
GAIN_SHIFT = 12
SYMBOL_MAX = 2**15 - 1

FirstTables = LevelTables | MappedTables  # of the first phase of the first group


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What is coded at once: some channels (positions in coding order) of some cells."""

    cells: Cells
    channels: Whole
    mean: Numbers  # rounded means [cells, channels]
    tables: NDArray[np.uint16]  # index of each symbol's table, likewise
    order: Whole  # what sorts the symbols by table


@dataclass(frozen=True, slots=True, eq=False)
class LevelPrior:
    """The context prior at one quality level, or at one for each cell: a ``SymbolCoder``."""

    prior: ContextPrior
    levels: int | NDArray[np.uint8]  # [h, w]

    def encode(self, symbols: NDArray[Any]) -> tuple[bytes, Symbols]:
        """See ``SymbolCoder``. Where the prior is sure enough, a symbol is not coded."""
        encoder, excess_table = RangeEncoder(), self.prior.excess

        def first(tables: FirstTables, cells: Cells) -> Numbers:
            values = tables.clamp(symbols[self._first_planes(), cells[0], cells[1]])
            tables.write(encoder, values)
            return values.T.astype(np.int32)

        def code(part: Part) -> Numbers:
            values, indices, _, beyond = self._split(part, symbols)
            for table, begin, end in self._runs(part):
                encoder.write(table, indices[begin:end])
            for excess in beyond.tolist():
                n_bits = (excess + 1).bit_length() - 1
                encoder.write(excess_table, np.array([n_bits], np.int32))
                encoder.write_bits(excess + 1 - (1 << n_bits), n_bits)
            return values

        coded = self.walk(symbols.shape[1], symbols.shape[2], first, code)
        return encoder.to_bytes(), coded

    def likelihoods(self, symbols: NDArray[Any]) -> tuple[Symbols, NDArray[np.float32]]:
        """See ``SymbolCoder``."""
        excess_table = self.prior.excess
        found = np.ones(symbols.shape, np.float32)

        def first(tables: FirstTables, cells: Cells) -> Numbers:
            planes = self._first_planes()
            values, p = tables.likelihoods(symbols[planes, cells[0], cells[1]])
            found[planes, cells[0], cells[1]] = p
            return values.T.astype(np.int32)

        def code(part: Part) -> Numbers:
            values, indices, edges, beyond = self._split(part, symbols)
            p = np.ones(indices.shape, np.float32)
            for table, begin, end in self._runs(part):
                p[begin:end] = table.probabilities[indices[begin:end]]
            n_bits = np.frexp(beyond + 1.0)[1] - 1
            p[edges] *= excess_table.probabilities[n_bits] * np.exp2(-n_bits)
            unsorted = np.empty_like(p)
            unsorted[part.order] = p
            rows, columns = part.cells
            planes = self.prior.order[part.channels]
            found[planes[None], rows[:, None], columns[:, None]] = unsorted.reshape(values.shape)
            return values

        return self.walk(symbols.shape[1], symbols.shape[2], first, code), found

    def decode(self, data: bytes, height: int, width: int) -> Symbols:
        """See ``SymbolCoder``."""
        decoder, excess_table = RangeDecoder(data), self.prior.excess
        # Of half a bit each at least, so many can be there; 8 bytes are in the coder's state.
        allowance = 16 * (len(data) + 8)

        def first(tables: FirstTables, cells: Cells) -> Numbers:
            return tables.read(decoder, len(cells[0])).T.astype(np.int32)

        def code(part: Part) -> Numbers:
            low, high = self._limits(part)
            indices = np.zeros(low.shape, np.int32)  # of symbols that are not coded
            for table, begin, end in self._runs(part):
                indices[begin:end] = decoder.read(table, end - begin)
            residual = low + indices
            nonlocal allowance
            edges = _edges(residual, low, high)
            allowance -= len(edges)
            if allowance < 0:
                raise FormatError("the z section is too short for what it says")
            for i in edges.tolist():
                n_bits = int(decoder.read(excess_table, 1)[0])
                excess = (1 << n_bits) - 1 + decoder.read_bits(n_bits)
                residual[i] += excess if residual[i] == high[i] else -excess
            symbols = part.mean.copy()
            symbols.ravel()[part.order] += residual
            if np.abs(symbols).max(initial=0) > SYMBOL_MAX:
                raise FormatError("the z section has a symbol beyond 16 bits")
            return symbols

        symbols = self.walk(height, width, first, code)
        decoder.finish()
        return symbols

    def walk(
        self, height: int, width: int, first: Callable[[FirstTables, Cells], Numbers],
        code: Callable[[Part], Numbers],
    ) -> Symbols:  # fmt: skip
        """Visit all parts in coding order; the callbacks return their symbols [cells, channels]."""
        prior = self.prior
        hidden, coded = prior.hidden, prior.coded[np.unique(self.levels)].any(axis=0)
        symbols = np.zeros((prior.n_channels, height, width), np.int16)
        everywhere = tuple(np.indices((height, width)).reshape(2, -1))
        spans = list(zip(prior.starts, prior.ends, strict=True))
        while spans and not coded[slice(*spans[-1])].any():
            spans.pop()
        totals = [np.zeros((height * width, hidden), np.float32) for _ in spans]
        for g, (begin, end) in enumerate(spans):
            total = totals.pop(0)
            channels = begin + np.flatnonzero(coded[begin:end])
            planes = prior.order[channels, None]
            phases = PHASES[prior.phases[g]]
            border = max(phase.reach for phase in phases)
            features = np.zeros(
                (height + 2 * border, width + 2 * border, 2 * (end - begin)), np.int8
            )
            phase_of = phase_map(len(phases), height, width).ravel()
            for p, phase in enumerate(phases):
                where = np.flatnonzero(phase_of == p)
                cells = everywhere[0][where], everywhere[1][where]
                levels = self._levels_of(cells)
                if (g, p) == (0, 0):
                    values = first(prior.first.at(levels), cells)[:, channels]
                else:
                    network = prior.networks[g, p]
                    sums = total[where]
                    if p:
                        seen = _trimmed(features, border - phase.reach)
                        convolve(seen, cells, network.first.weight, [sums], phase.reach)
                    values = code(self._part(network, sums, cells, levels, channels, begin))
                symbols[planes, cells[0], cells[1]] = values.T
                inner = _trimmed(features, border)
                self._add_features(inner, values, cells, levels, channels, begin)
            outgoing = prior.shared[g][:, : hidden * len(totals)]
            convolve(_trimmed(features, border - 1), everywhere, outgoing, totals)
        return symbols

    def _levels_of(self, cells: Cells) -> CellLevels:
        return self.levels if isinstance(self.levels, int) else self.levels[cells]

    def _part(
        self, network: Network, sums: Floats, cells: Cells, levels: CellLevels, channels: Whole,
        begin: int,
    ) -> Part:  # fmt: skip
        """From a network's first sums [cells, hidden] to means and tables of the coded channels."""
        rounded = np.empty((len(sums), len(channels)), np.int32)
        tables = np.empty(rounded.shape, np.uint16)  # 16 bits are sorted fastest
        for band in bands(len(sums)):
            some = _cut(levels, band)
            outputs = network(sums[band], some)
            rounded[band], tables[band] = self._distributions(outputs, some, channels, begin)
        return Part(cells, channels, rounded, tables, np.argsort(tables, axis=None, kind="stable"))

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
        fraction = np.where(scale < prior.fine, mean - FRACTIONS * rounded + FRACTIONS // 2,
                            FRACTIONS // 2)  # fmt: skip
        coded = _at(prior.coded, levels, channels)
        return rounded * coded, np.where(coded, scale * FRACTIONS + fraction, len(prior.rows))

    def _add_features(
        self, features: Features, values: Numbers, cells: Cells, levels: CellLevels,
        channels: Whole, begin: int,
    ) -> None:  # fmt: skip
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

    def _first_planes(self) -> Whole:
        """Channels of z that have tables of their own, [n, 1]."""
        return self.prior.order[: self.prior.groups[0], None]

    def _split(self, part: Part, symbols: NDArray[Any]) -> tuple[Numbers, Numbers, Whole, Numbers]:
        """A part's symbols, and what is coded of them.

        Returns:
            The symbols [cells, channels] as a decoder will have them; their residuals, sorted and
            limited to the tables, as distances from the lowest; where an excess follows; and these
            excesses.
        """
        (rows, columns), planes = part.cells, self.prior.order[part.channels]
        values = symbols[planes[None], rows[:, None], columns[:, None]]
        values = values.clip(-SYMBOL_MAX, SYMBOL_MAX).astype(np.int32)
        values = np.where(self.prior.is_coded[part.tables], values, part.mean)
        residual = (values - part.mean).ravel()[part.order]
        low, high = self._limits(part)
        clamped = residual.clip(low, high)
        edges = _edges(clamped, low, high)
        beyond = np.abs(residual[edges] - clamped[edges])
        clamped -= low
        return values, clamped, edges, beyond

    def _limits(self, part: Part) -> tuple[Numbers, Numbers]:
        """Lowest and highest residual of each symbol's table, sorted."""
        tables = part.tables.ravel()[part.order]
        return self.prior.low[tables], self.prior.high[tables]

    def _runs(self, part: Part) -> Iterator[tuple[Table, int, int]]:
        """The tables that code something, and which of the sorted symbols."""
        counts = np.bincount(part.tables.ravel(), minlength=len(self.prior.is_coded))
        ends = np.cumsum(counts)
        for row in np.flatnonzero(self.prior.is_coded & (counts > 0)).tolist():
            yield self.prior.rows[row], int(ends[row] - counts[row]), int(ends[row])


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


def _edges(residual: Numbers, low: Numbers, high: Numbers) -> Whole:
    """Where an excess follows: at the limits of a table, if it has several symbols."""
    return np.flatnonzero(((residual == low) | (residual == high)) & (low < high))
