"""The parts of z that the context prior codes at once: each can be written, read and weighed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.errors import FormatError
from bkcodec.prior.exact import Cells, Numbers, Whole
from bkcodec.prior.tables import LevelTables, MappedTables, RangeDecoder, RangeEncoder, Table

if TYPE_CHECKING:
    from bkcodec.prior.context import ContextPrior

SYMBOL_MAX = 2**15 - 1


class Part(ABC):
    """Some channels of some cells.

    Attributes:
        planes: channels of z [n].
        cells: rows and columns.
        values: symbols [cells, n]; ``write``, ``read`` and ``weigh`` leave them here, as a decoder
            will have them.
    """

    planes: Whole
    cells: Cells
    values: Numbers

    @abstractmethod
    def write(self, encoder: RangeEncoder, symbols: NDArray[Any]) -> None:
        """Code the part of symbols [C, h, w]."""

    @abstractmethod
    def read(self, decoder: RangeDecoder) -> None:
        """Decode the part.

        Raises:
            FormatError: a string that ``write`` does not make.
        """

    @abstractmethod
    def weigh(self, symbols: NDArray[Any]) -> NDArray[np.float32]:
        """The probability [cells, n] of each of the part's symbols."""

    def of(self, symbols: NDArray[Any]) -> NDArray[Any]:
        """The part's values [cells, n] in a map [C, h, w]."""
        rows, columns = self.cells
        part: NDArray[Any] = symbols[self.planes[None], rows[:, None], columns[:, None]]
        return part

    def enter(self, values: NDArray[Any], target: NDArray[Any]) -> None:
        """The inverse of ``of``."""
        rows, columns = self.cells
        target[self.planes[:, None], rows, columns] = values.T


class FirstPart(Part):
    """What nothing is known about: its channels have tables of their own.

    Args:
        tables: of all channels of the first group.
        planes: these channels of z.
        cells: rows and columns.
    """

    def __init__(self, tables: LevelTables | MappedTables, planes: Whole, cells: Cells) -> None:
        self.tables, self.planes, self.cells = tables, planes, cells

    def write(self, encoder: RangeEncoder, symbols: NDArray[Any]) -> None:
        """See ``Part``; what the tables cannot say is clamped."""
        values = self.tables.clamp(self.of(symbols).T)
        self.tables.write(encoder, values)
        self.values = values.T.astype(np.int32)

    def read(self, decoder: RangeDecoder) -> None:
        """See ``Part``."""
        self.values = self.tables.read(decoder, len(self.cells[0])).T.astype(np.int32)

    def weigh(self, symbols: NDArray[Any]) -> NDArray[np.float32]:
        """See ``Part``."""
        values, p = self.tables.likelihoods(self.of(symbols).T)
        self.values = values.T.astype(np.int32)
        return p.T


class PredictedPart(Part):
    """What a network predicts: a mean and a table for each symbol.

    Where a table says nothing but its mean, nothing is coded. At the limits of the others an
    excess follows.

    Args:
        prior: whose tables they are.
        planes: channels of z.
        cells: rows and columns.
        mean: rounded means [cells, channels].
        tables: index of each symbol's table, likewise.
    """

    def __init__(
        self,
        prior: ContextPrior,
        planes: Whole,
        cells: Cells,
        mean: Numbers,
        tables: NDArray[np.uint16],
    ) -> None:
        self.prior, self.planes, self.cells = prior, planes, cells
        self.mean, self.tables = mean, tables
        # Where something is coded, and in which order: table after table.
        coded = np.flatnonzero(prior.is_coded[tables])
        coded_by = tables.ravel()[coded]
        self.order = coded[np.argsort(coded_by, kind="stable")]
        self.counts = np.bincount(coded_by, minlength=len(prior.is_coded))  # of each table

    def write(self, encoder: RangeEncoder, symbols: NDArray[Any]) -> None:
        """See ``Part``."""
        indices, _, beyond = self._split(symbols)
        for table, begin, end in self._runs():
            encoder.write(table, indices[begin:end])
        for excess in beyond.tolist():
            n_bits = (excess + 1).bit_length() - 1
            encoder.write(self.prior.excess, np.array([n_bits], np.int32))
            encoder.write_bits(excess + 1 - (1 << n_bits), n_bits)

    def read(self, decoder: RangeDecoder) -> None:
        """See ``Part``."""
        low, high = self._limits()
        indices = np.empty(low.shape, np.int32)
        for table, begin, end in self._runs():
            indices[begin:end] = decoder.read(table, end - begin)
        residual = low + indices
        edges = _edges(residual, low, high)
        decoder.expect(len(edges))
        for i in edges.tolist():
            n_bits = int(decoder.read(self.prior.excess, 1)[0])
            excess = (1 << n_bits) - 1 + decoder.read_bits(n_bits)
            residual[i] += excess if residual[i] == high[i] else -excess
        self.values = self.mean.copy()
        self.values.ravel()[self.order] += residual
        if np.abs(self.values.ravel()[self.order]).max(initial=0) > SYMBOL_MAX:
            raise FormatError("the z section has a symbol beyond 16 bits")

    def weigh(self, symbols: NDArray[Any]) -> NDArray[np.float32]:
        """See ``Part``."""
        indices, edges, beyond = self._split(symbols)
        p = np.ones(indices.shape, np.float32)
        for table, begin, end in self._runs():
            p[begin:end] = table.probabilities[indices[begin:end]]
        n_bits = np.frexp(beyond + 1.0)[1] - 1
        p[edges] *= self.prior.excess.probabilities[n_bits] * np.exp2(-n_bits)
        likelihoods = np.ones(self.values.shape, np.float32)
        likelihoods.ravel()[self.order] = p
        return likelihoods

    def _split(self, symbols: NDArray[Any]) -> tuple[Numbers, Whole, Numbers]:
        """Set ``values``; returns what is coded of them.

        Returns:
            Their residuals, sorted and limited to the tables, as distances from the lowest; where
            an excess follows; and these excesses.
        """
        values = self.of(symbols).ravel()[self.order].clip(-SYMBOL_MAX, SYMBOL_MAX)
        self.values = self.mean.copy()
        self.values.ravel()[self.order] = values
        residual = values.astype(np.int32) - self.mean.ravel()[self.order]
        low, high = self._limits()
        clamped = residual.clip(low, high)
        edges = _edges(clamped, low, high)
        beyond = np.abs(residual[edges] - clamped[edges])
        clamped -= low
        return clamped, edges, beyond

    def _limits(self) -> tuple[Numbers, Numbers]:
        """Lowest and highest residual of each symbol's table, sorted."""
        low, high = (np.repeat(x, self.counts) for x in (self.prior.low, self.prior.high))
        return low, high

    def _runs(self) -> Iterator[tuple[Table, int, int]]:
        """The tables that code something, and which of the sorted symbols."""
        ends = np.cumsum(self.counts)
        used = np.flatnonzero(self.counts)
        begins, ends = ends[used] - self.counts[used], ends[used]
        for row, begin, end in zip(used.tolist(), begins.tolist(), ends.tolist(), strict=True):
            yield self.prior.rows[row], begin, end


def _edges(residual: Numbers, low: Numbers, high: Numbers) -> Whole:
    """Where an excess follows: at the limits of a table, if it has several symbols."""
    return np.flatnonzero(((residual == low) | (residual == high)) & (low < high))
