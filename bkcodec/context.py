"""The context prior: symbols predicted from symbols decoded before, in exact integer arithmetic.

Channels are coded in groups, the most variable ones first, and the cells of a group in phases that
interleave (``PHASES``). A small network predicts the symbols of a phase from all earlier groups
and from the earlier phases of its own group, through a 3x3 window:

```
features of earlier groups ---3x3 shared--(+)--> clip --1x1--> clip --1x1--> mean, scale index
features of known own symbols ---3x3 own---^
```

The prediction picks one table of a grid (scale index x fraction of the mean); the symbol is coded
relative to the rounded mean with that table. Of the first group, the first phase knows nothing:
its channels have tables of their own, as in the factorized prior. formats/bkc-1.md writes down
every shift and clip; ``exact`` explains why all machines agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.entropy import (
    Integers,
    LevelTables,
    RangeDecoder,
    RangeEncoder,
    Symbols,
    Table,
    Tables,
)
from bkcodec.errors import FormatError, UnsupportedError
from bkcodec.exact import (
    FEATURE_MAX,
    HIDDEN_MAX,
    Cells,
    Features,
    Floats,
    Layer,
    Network,
    Numbers,
    Whole,
    bands,
    convolve,
)
from bkcodec.layout import PHASES, check_shapes, hidden_width

FRACTIONS = 16  # means are in 1/16 symbols
GAIN_SHIFT = 12
SYMBOL_MAX = 2**15 - 1
EXCESS_BITS = 17  # a symbol beyond its table is at most 2^17 - 1 away from it
EXCESS_WEIGHT = 46340  # the largest in its table: an excess costs half a bit at least
MAX_SCALES = 4096


class ContextPrior:
    """The context prior of a bundle.

    Args:
        arrays: the bundle's ``prior.*`` arrays without that prefix (see formats/bkc-1.md).
        first: tables [levels, channels of the first group], of that group's first phase.

    Raises:
        UnsupportedError: the arrays contradict each other, or a sum could leave 2^24.
    """

    def __init__(self, arrays: dict[str, Integers], first: Tables) -> None:
        self.arrays, self.first = arrays, first
        try:
            self.groups, self.phases = (arrays[k].tolist() for k in ("groups", "phases"))
            check_shapes(arrays, self.groups, self.phases, first)
            self.ends = np.cumsum(self.groups).tolist()
            self.starts = [0, *self.ends[:-1]]
            self.order = arrays["order"].astype(np.int64)
            self.coded = arrays["coded"] != 0
            self.gain, self.mean_gain = (arrays[k].astype(np.int64) for k in ("gain", "mean_gain"))
            self.magnitude = arrays["magnitude"].astype(np.float32)
            grid, excess = Tables.load(arrays, "rows"), Tables.load(arrays, "excess")
            self.rows = [row for i in range(grid.n_levels) for row in grid.level(i).channels]
            self.low, self.high = (
                np.array([getattr(row, k) for row in self.rows], np.int32) for k in ("low", "high")
            )
            self.is_coded = self.low < self.high
            self.n_scales, self.fine = grid.n_levels, int(arrays["fine"][0])
            self.excess = excess.level(0).channels[0]
            self._check_values(grid)
            self.shared = [self._outgoing(g) for g in range(len(self.groups))]
            self.networks = {
                (g, p): self._network(g, p)
                for g, n in enumerate(self.phases) for p in range(n) if (g, p) != (0, 0)
            }  # fmt: skip
            self.hidden = hidden_width(arrays)
        except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise UnsupportedError(f"the bundle's context prior does not fit: {error}") from error

    @property
    def n_channels(self) -> int:
        """Channels of z."""
        return int(self.ends[-1])

    @property
    def n_levels(self) -> int:
        """Quality levels."""
        return int(self.coded.shape[0])

    def bundled(self) -> dict[str, Integers]:
        """All arrays of a bundle that say how its symbols are coded."""
        return {f"prior.{k}": v for k, v in self.arrays.items()} | self.first.bundled()

    def level(self, level: int) -> LevelPrior:
        """The prior at one quality level."""
        return LevelPrior(self, level)

    def _check_values(self, grid: Tables) -> None:
        n = self.groups[0]
        if not (
            np.array_equal(np.sort(self.order), np.arange(self.n_channels))
            and self.magnitude.max() <= FEATURE_MAX
            and (grid.n_channels, grid.n_levels <= MAX_SCALES) == (FRACTIONS, True)
            and (self.excess.low, self.excess.high) == (0, EXCESS_BITS)
            and self.excess.weights.max() <= EXCESS_WEIGHT
            and not self.low[~self.is_coded].any()
            and not (self.first.lengths[~self.coded[:, :n]] > 1).any()
        ):
            raise ValueError("values out of range")

    def _outgoing(self, source: int) -> Floats:
        """Weights from a group's features to the first layers of all later groups, side by side."""
        a, b = 2 * self.starts[source], 2 * self.ends[source]
        parts: list[Integers] = [np.zeros((9 * (b - a), 0), np.int8)]
        for g in range(source + 1, len(self.groups)):
            part = self.arrays[f"{g}.shared"].reshape(9, 2 * self.starts[g], -1)[:, a:b]
            parts.append(part.reshape(9 * (b - a), -1))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _network(self, g: int, p: int) -> Network:
        shared = [self.arrays[f"{g}.shared"]] if g else []
        return Network(
            Layer.load(self.arrays, f"{g}.{p}.1", FEATURE_MAX, *shared),
            Layer.load(self.arrays, f"{g}.{p}.2", HIDDEN_MAX),
            Layer.load(self.arrays, f"{g}.{p}.3", HIDDEN_MAX),
        )


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
    """The context prior at one quality level: an ``entropy.SymbolCoder``."""

    prior: ContextPrior
    index: int

    def encode(self, symbols: NDArray[Any]) -> tuple[bytes, Symbols]:
        """See ``SymbolCoder``. Where the prior is sure enough, a symbol is not coded."""
        encoder, excess_table = RangeEncoder(), self.prior.excess

        def first(tables: LevelTables, cells: Cells) -> Numbers:
            values = tables.clamp(symbols[self._first_planes(tables), cells[0], cells[1]])
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

        def first(tables: LevelTables, cells: Cells) -> Numbers:
            planes = self._first_planes(tables)
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

        def first(tables: LevelTables, cells: Cells) -> Numbers:
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
        self, height: int, width: int, first: Callable[[LevelTables, Cells], Numbers],
        code: Callable[[Part], Numbers],
    ) -> Symbols:  # fmt: skip
        """Visit all parts in coding order; the callbacks return their symbols [cells, channels]."""
        prior = self.prior
        hidden, coded = prior.hidden, prior.coded[self.index]
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
            features = np.zeros((height + 2, width + 2, 2 * (end - begin)), np.int8)
            phase_of = np.array(PHASES[prior.phases[g]])[everywhere[0] % 2, everywhere[1] % 2]
            for p in range(prior.phases[g]):
                where = np.flatnonzero(phase_of == p)
                cells = everywhere[0][where], everywhere[1][where]
                if (g, p) == (0, 0):
                    tables = prior.first.level(self.index)
                    values = first(tables, cells)[:, channels]
                else:
                    network = prior.networks[g, p]
                    sums = total[where]
                    if p:
                        convolve(features, cells, network.first.weight, [sums])
                    values = code(self._part(network, sums, cells, channels, begin))
                symbols[planes, cells[0], cells[1]] = values.T
                self._add_features(features, values, cells, channels, begin)
            convolve(features, everywhere, prior.shared[g][:, : hidden * len(totals)], totals)
        return symbols

    def _part(
        self, network: Network, sums: Floats, cells: Cells, channels: Whole, begin: int
    ) -> Part:
        """From a network's first sums [cells, hidden] to means and tables of the coded channels."""
        rounded = np.empty((len(sums), len(channels)), np.int32)
        tables = np.empty(rounded.shape, np.uint16)  # 16 bits are sorted fastest
        for band in bands(len(sums)):
            outputs = network(sums[band], self.index)
            rounded[band], tables[band] = self._distributions(outputs, channels, begin)
        return Part(cells, channels, rounded, tables, np.argsort(tables, axis=None, kind="stable"))

    def _distributions(self, outputs: Whole, channels: Whole, begin: int) -> tuple[Whole, Whole]:
        """Outputs [cells, 2 * group] -> rounded means and table indices of the coded channels."""
        prior = self.prior
        mean, scale = np.split(outputs, 2, axis=1)
        mean, scale = mean[:, channels - begin], scale[:, channels - begin]
        half = 1 << (GAIN_SHIFT - 1)
        limit = FRACTIONS * SYMBOL_MAX
        mean = (mean * prior.mean_gain[self.index, channels] + half) >> GAIN_SHIFT
        mean, scale = mean.clip(-limit, limit), scale.clip(0, prior.n_scales - 1)
        rounded = (mean + FRACTIONS // 2) // FRACTIONS
        fraction = np.where(scale < prior.fine, mean - FRACTIONS * rounded + FRACTIONS // 2,
                            FRACTIONS // 2)  # fmt: skip
        return rounded, scale * FRACTIONS + fraction

    def _add_features(
        self, features: Features, values: Numbers, cells: Cells, channels: Whole, begin: int
    ) -> None:
        """Enter symbols [cells, channels] into a group's features [h + 2, w + 2, 2 * group]."""
        half, position = 1 << (GAIN_SHIFT - 1), 2 * (channels - begin)
        gain = self.prior.gain[self.index, channels]
        for band in bands(len(values)):
            part = values[band].astype(np.int64)
            rows = np.zeros((len(part), features.shape[2]), np.int8)
            scaled = (part * gain + half) >> GAIN_SHIFT
            rows[:, position] = scaled.clip(-FEATURE_MAX, FEATURE_MAX)
            rows[:, position + 1] = self.prior.magnitude[np.abs(part).clip(max=255)]
            features[cells[0][band] + 1, cells[1][band] + 1] = rows

    def _first_planes(self, tables: LevelTables) -> Whole:
        """Channels of z that have tables of their own, [n, 1]."""
        return self.prior.order[: len(tables.channels), None]

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
        counts = np.bincount(part.tables.ravel(), minlength=len(self.prior.rows))
        ends = np.cumsum(counts)
        for row in np.flatnonzero(self.prior.is_coded & (counts > 0)).tolist():
            yield self.prior.rows[row], int(ends[row] - counts[row]), int(ends[row])


def _edges(residual: Numbers, low: Numbers, high: Numbers) -> Whole:
    """Where an excess follows: at the limits of a table, if it has several symbols."""
    return np.flatnonzero(((residual == low) | (residual == high)) & (low < high))
