"""The parts of z that the context prior codes at once: each can be written, read and weighed.

Symbols lie in rows [cells, C], of channels in coding order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.errors import FormatError
from bkcodec.prior.exact import Numbers, Whole
from bkcodec.prior.tables import LevelTables, MappedTables, RangeDecoder, RangeEncoder, Table

if TYPE_CHECKING:
    from bkcodec.prior.context import ContextPrior

SYMBOL_MAX = 2**15 - 1


class Part(ABC):
    """Some channels of some cells.

    Attributes:
        channels: positions in coding order [n], ascending.
        where: the cells.
        values: symbols [cells, n]; ``write``, ``read`` and ``weigh`` leave them here, as a decoder
            will have them.
    """

    channels: Whole
    where: Whole
    values: Numbers

    @abstractmethod
    def write(self, encoder: RangeEncoder, rows: NDArray[Any]) -> None:
        """Code the part of symbols [cells, C]."""

    @abstractmethod
    def read(self, decoder: RangeDecoder) -> None:
        """Decode the part.

        Raises:
            FormatError: a string that ``write`` does not make.
        """

    @abstractmethod
    def weigh(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """The probability [part's cells, n] of each of the part's symbols."""

    def of(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The part's values among those of all, [part's cells, n]."""
        run = self._run()
        part: NDArray[Any] = rows[self.where][:, self.channels] if run is None else rows[:, run]
        return part if run is None else part[self.where]

    def enter(self, values: NDArray[Any], rows: NDArray[Any]) -> None:
        """The inverse of ``of``."""
        run = self._run()
        if run is None:
            rows[self.where[:, None], self.channels] = values
        else:
            rows[self.where, run] = values

    def _run(self) -> slice | None:
        """The channels as a slice, which is faster, if there are some and none is left out."""
        n = len(self.channels)
        if not n or self.channels[-1] - self.channels[0] >= n:
            return None
        return slice(int(self.channels[0]), int(self.channels[-1]) + 1)


class FirstPart(Part):
    """What nothing is known about: its channels have tables of their own.

    Args:
        tables: of all channels of the first group.
        channels: these channels.
        where: the cells.
    """

    def __init__(self, tables: LevelTables | MappedTables, channels: Whole, where: Whole) -> None:
        self.tables, self.channels, self.where = tables, channels, where

    def write(self, encoder: RangeEncoder, rows: NDArray[Any]) -> None:
        """See ``Part``; what the tables cannot say is clamped."""
        values = self.tables.clamp(self.of(rows).T)
        self.tables.write(encoder, values)
        self.values = values.T.astype(np.int32)

    def read(self, decoder: RangeDecoder) -> None:
        """See ``Part``."""
        self.values = self.tables.read(decoder, len(self.where)).T.astype(np.int32)

    def weigh(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """See ``Part``."""
        values, p = self.tables.likelihoods(self.of(rows).T)
        self.values = values.T.astype(np.int32)
        return p.T


class PredictedPart(Part):
    """What a network predicts: a mean and a table for each symbol.

    Where a table says nothing but its mean, nothing is coded. At the limits of the others an
    excess follows.

    Args:
        prior: whose tables they are.
        channels: positions in coding order.
        where: the cells.
        mean: rounded means [cells, channels].
        tables: index of each symbol's table, likewise.
    """

    def __init__(
        self,
        prior: ContextPrior,
        channels: Whole,
        where: Whole,
        mean: Numbers,
        tables: NDArray[np.uint16],
    ) -> None:
        self.prior, self.channels, self.where = prior, channels, where
        self.mean, self.tables = mean, tables
        # Where something is coded, and in which order: table after table.
        coded = np.flatnonzero(prior.is_coded[tables])
        coded_by = tables.ravel()[coded]
        self.order = coded[np.argsort(coded_by, kind="stable")]
        self.counts = np.bincount(coded_by, minlength=len(prior.is_coded))  # of each table

    def write(self, encoder: RangeEncoder, rows: NDArray[Any]) -> None:
        """See ``Part``."""
        indices, _, beyond = self._split(rows)
        for table, begin, end in self._runs():
            encoder.write(table, indices[begin:end])
        for excess in beyond.tolist():
            n_bits = (excess + 1).bit_length() - 1
            encoder.write(self.prior.excess, np.array([n_bits], np.int32))
            encoder.write_bits(excess + 1 - (1 << n_bits), n_bits)

    def read(self, decoder: RangeDecoder) -> None:
        """See ``Part``."""
        low, last = self._limits()
        indices = decoder.read_runs(self.prior.rows, self.counts)
        edges = _edges(indices, last)
        decoder.expect(len(edges))
        for i in edges.tolist():
            n_bits = int(decoder.read(self.prior.excess, 1)[0])
            excess = (1 << n_bits) - 1 + decoder.read_bits(n_bits)
            indices[i] += excess if indices[i] else -excess
        residual = np.zeros(self.mean.shape, np.int32)
        residual.ravel()[self.order] = indices + low
        self.values = self.mean + residual
        if max(self.values.max(initial=0), -self.values.min(initial=0)) > SYMBOL_MAX:
            raise FormatError("the z section has a symbol beyond 16 bits")

    def weigh(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """See ``Part``."""
        indices, edges, beyond = self._split(rows)
        p = np.ones(indices.shape, np.float32)
        for table, begin, end in self._runs():
            p[begin:end] = table.probabilities[indices[begin:end]]
        n_bits = np.frexp(beyond + 1.0)[1] - 1
        p[edges] *= self.prior.excess.probabilities[n_bits] * np.exp2(-n_bits)
        likelihoods = np.ones(self.values.shape, np.float32)
        likelihoods.ravel()[self.order] = p
        return likelihoods

    def _split(self, rows: NDArray[Any]) -> tuple[Numbers, Whole, Numbers]:
        """Set ``values``; returns what is coded of them.

        Returns:
            Their residuals, sorted and limited to the tables, as distances from the lowest; where
            an excess follows; and these excesses.
        """
        values = self.of(rows).ravel()[self.order].clip(-SYMBOL_MAX, SYMBOL_MAX).astype(np.int32)
        mean = self.mean.ravel()[self.order]
        residual = np.zeros(self.mean.shape, np.int32)
        residual.ravel()[self.order] = values - mean
        self.values = self.mean + residual
        low, last = self._limits()
        indices = values - mean - low
        clamped = indices.clip(0, last)
        edges = _edges(clamped, last)
        return clamped, edges, np.abs(indices[edges] - clamped[edges])

    def _limits(self) -> tuple[Numbers, Numbers]:
        """Lowest residual of each symbol's table, and the distance to its highest; sorted."""
        low, last = (np.repeat(x, self.counts) for x in (self.prior.low, self.prior.last))
        return low, last

    def _runs(self) -> Iterator[tuple[Table, int, int]]:
        """The tables that code something, and which of the sorted symbols."""
        ends = np.cumsum(self.counts)
        used = np.flatnonzero(self.counts)
        begins, ends = ends[used] - self.counts[used], ends[used]
        for row, begin, end in zip(used.tolist(), begins.tolist(), ends.tolist(), strict=True):
            yield self.prior.rows[row], begin, end


def _edges(indices: Numbers, last: Numbers) -> Whole:
    """Where an excess follows: at the limits of a table."""
    return np.flatnonzero((indices == 0) | (indices == last))
