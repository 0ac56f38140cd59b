"""Entropy coding of integers: the range coder of constriction over integer probability tables.

A table has a lowest symbol and the weights of the symbols from there on, integers >= 1 that sum to
2^16. A table of one symbol costs no bits: what it stands for is not coded and decodes to that
symbol. With the factorized prior (``LevelTables``) the bundle holds one table a (quality level,
channel); symbols are coded channel after channel, each channel row by row. ``context`` is the
prior that predicts; it uses the same tables and coder.

A coded string is the coder's 32-bit words, little-endian. How weights become the coder's 24-bit
cumulatives is written down in formats/bkc-1.md. No floating-point network is involved, so symbols
decode bit-exactly on every machine. This is also the reason why a table's probabilities are
multiples of 2^-16: float32 holds them exactly.

The coder: Bamler 2022, arXiv:2201.01741 (queue.RangeEncoder).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from bkcodec.errors import FormatError, UnsupportedError

TOTAL = 2**16  # sum of a table's weights
WORD_BYTES = 4

Symbols = NDArray[np.int16]
Integers = NDArray[np.integer[Any]]


class SymbolCoder(Protocol):
    """What both priors offer at one quality level."""

    def encode(self, symbols: NDArray[Any]) -> tuple[bytes, Symbols]:
        """Code integers [C, h, w] of any size; returns the string and what it decodes to."""

    def decode(self, data: bytes, height: int, width: int) -> Symbols:
        """Decode symbols [C, height, width]; FormatError for what ``encode`` never makes."""

    def likelihoods(self, symbols: NDArray[Any]) -> tuple[Symbols, NDArray[np.float32]]:
        """The symbols that ``encode`` makes of these, and the probability of each."""


class RangeEncoder:
    """constriction's range encoder."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def write(self, table: Table, indices: NDArray[np.int32]) -> None:
        """Code symbols [n], each given as its distance from the table's lowest."""
        self._coder.encode(indices, table.model)

    def write_bits(self, value: int, n_bits: int) -> None:
        """Code an integer of 0 to 24 bits, all values equally likely."""
        if n_bits:
            self._coder.encode(value, constriction.stream.model.Uniform(2**n_bits))

    def to_bytes(self) -> bytes:
        """The string so far."""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype("<u4").tobytes()


class RangeDecoder:
    """constriction's range decoder; what it dislikes is a FormatError that names the section."""

    def __init__(self, data: bytes, section: str = "z") -> None:
        self._section = section
        if len(data) % WORD_BYTES:
            raise FormatError(
                f"the {section} section has {len(data)} bytes, not a multiple of {WORD_BYTES}"
            )
        words = np.frombuffer(data, dtype="<u4").astype(np.uint32)
        self._is_untouched = bool(len(words))  # there are words, and nothing was decoded of them
        self._coder = constriction.stream.queue.RangeDecoder(words)
        # Of half a bit each at least, so many can be there; 8 bytes are in the coder's state.
        self._allowance = 16 * (len(data) + 8)

    def read(self, table: Table, n: int) -> NDArray[np.int32]:
        """Decode n symbols, each given as its distance from the table's lowest."""
        indices: NDArray[np.int32] = self._decode(table.model, n)
        return indices

    def read_runs(self, tables: list[Table], counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Decode so many symbols of each table, one table after the other; see ``read``."""
        indices, end = np.empty(int(counts.sum()), np.int32), 0
        for used in np.flatnonzero(counts).tolist():
            begin, end = end, end + int(counts[used])
            indices[begin:end] = self._decode(tables[used].model, end - begin)
        return indices

    def read_bits(self, n_bits: int) -> int:
        """Inverse of ``write_bits``."""
        if not n_bits:
            return 0
        return int(self._decode(constriction.stream.model.Uniform(2**n_bits)))

    def expect(self, n: int) -> None:
        """Refuse to read n more items that cost half a bit at least, where no more can be there."""
        self._allowance -= n
        if self._allowance < 0:
            raise FormatError(f"the {self._section} section is too short for what it says")

    def finish(self) -> None:
        """Refuse a string that goes on."""
        if self._is_untouched or not self._coder.maybe_exhausted():
            raise FormatError(f"the {self._section} section goes on after its last symbol")

    def _decode(self, *arguments: Any) -> Any:
        self._is_untouched = False
        try:
            return self._coder.decode(*arguments)
        except (AssertionError, ValueError) as error:
            raise FormatError(
                f"the {self._section} section is not a valid range-coded string: {error}"
            ) from error


@dataclass(frozen=True, eq=False)
class Table:
    """The distribution of one kind of symbol: ``weights[k]`` belongs to symbol ``low + k``."""

    low: int
    weights: NDArray[np.uint16]

    @cached_property
    def high(self) -> int:
        """The largest symbol."""
        return self.low + len(self.weights) - 1

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Of each symbol, exact."""
        if len(self.weights) == 1:
            return np.ones(1, np.float32)
        return self.weights.astype(np.float32) / np.float32(TOTAL)

    @cached_property
    def model(self) -> constriction.stream.model.Categorical:
        """For the coder; only where there are several symbols."""
        return constriction.stream.model.Categorical(self.probabilities, perfect=False)


class _FactorizedCoder(ABC):
    """Strings of a prior that codes channel after channel, each on its own."""

    @abstractmethod
    def clamp(self, symbols: NDArray[Any]) -> Symbols:
        """Limit symbols [C, ...] to what the tables can say."""

    @abstractmethod
    def write(self, encoder: RangeEncoder, symbols: Symbols) -> None:
        """Code symbols [C, ...], all within their tables."""

    @abstractmethod
    def read(self, decoder: RangeDecoder, n: int) -> Symbols:
        """Decode n symbols per channel, [C, n]."""

    def encode(self, symbols: NDArray[Any]) -> tuple[bytes, Symbols]:
        """See ``SymbolCoder``: symbols beyond their table are clamped."""
        encoder, clamped = RangeEncoder(), self.clamp(symbols)
        self.write(encoder, clamped)
        return encoder.to_bytes(), clamped

    def decode(self, data: bytes, height: int, width: int) -> Symbols:
        """See ``SymbolCoder``."""
        decoder = RangeDecoder(data)
        symbols = self.read(decoder, height * width).reshape(-1, height, width)
        decoder.finish()
        return symbols


@dataclass(frozen=True, slots=True)
class LevelTables(_FactorizedCoder):
    """The tables of one quality level, one per channel: the factorized prior."""

    channels: list[Table]

    def clamp(self, symbols: NDArray[Any]) -> Symbols:
        """Limit symbols [C, ...] to what the tables can say."""
        shape = (-1, *[1] * (symbols.ndim - 1))
        low, high = (
            np.array([getattr(t, k) for t in self.channels]).reshape(shape) for k in ("low", "high")
        )
        return np.clip(symbols, low, high).astype(np.int16)

    def likelihoods(self, symbols: NDArray[Any]) -> tuple[Symbols, NDArray[np.float32]]:
        """See ``SymbolCoder``."""
        clamped = self.clamp(symbols)
        rows = zip(self.channels, clamped.astype(np.int64), strict=True)
        return clamped, np.stack([table.probabilities[plane - table.low] for table, plane in rows])

    def write(self, encoder: RangeEncoder, symbols: Symbols) -> None:
        """Code symbols [C, ...], all within their tables."""
        for table, plane in zip(self.channels, symbols, strict=True):
            if len(table.weights) > 1:
                encoder.write(table, plane.ravel().astype(np.int32) - table.low)

    def read(self, decoder: RangeDecoder, n: int) -> Symbols:
        """Decode n symbols per channel, [C, n]."""
        symbols = np.empty((len(self.channels), n), dtype=np.int16)
        for table, plane in zip(self.channels, symbols, strict=True):
            plane[:] = table.low
            if len(table.weights) > 1:
                plane += decoder.read(table, n).astype(np.int16)
        return symbols


class MappedTables(_FactorizedCoder):
    """The tables of cells that have levels of their own: the factorized prior with a level map.

    As ``LevelTables``, which each level has; symbols are coded channel after channel, each level
    after level, each row by row.
    """

    def __init__(self, tables: Tables, levels: NDArray[np.uint8]) -> None:
        flat = levels.ravel()
        self.n_channels = tables.n_channels
        self.parts = [
            (tables.level(level), np.flatnonzero(flat == level))
            for level in np.unique(flat).tolist()
        ]

    def clamp(self, symbols: NDArray[Any]) -> Symbols:
        """Limit symbols [C, ...] to what the tables of their cells can say."""
        flat = symbols.reshape(len(symbols), -1)
        clamped = np.empty(flat.shape, np.int16)
        for tables, cells in self.parts:
            clamped[:, cells] = tables.clamp(flat[:, cells])
        return clamped.reshape(symbols.shape)

    def likelihoods(self, symbols: NDArray[Any]) -> tuple[Symbols, NDArray[np.float32]]:
        """See ``SymbolCoder``."""
        flat = symbols.reshape(len(symbols), -1)
        clamped, p = np.empty(flat.shape, np.int16), np.empty(flat.shape, np.float32)
        for tables, cells in self.parts:
            clamped[:, cells], p[:, cells] = tables.likelihoods(flat[:, cells])
        return clamped.reshape(symbols.shape), p.reshape(symbols.shape)

    def write(self, encoder: RangeEncoder, symbols: Symbols) -> None:
        """Code symbols [C, ...], all within their tables."""
        flat = symbols.reshape(len(symbols), -1)
        for channel, plane in enumerate(flat):
            for tables, cells in self.parts:
                table = tables.channels[channel]
                if len(table.weights) > 1:
                    encoder.write(table, plane[cells].astype(np.int32) - table.low)

    def read(self, decoder: RangeDecoder, n: int) -> Symbols:
        """Decode the symbols of all n cells, [C, n]."""
        symbols = np.empty((self.n_channels, n), dtype=np.int16)
        for channel, plane in enumerate(symbols):
            for tables, cells in self.parts:
                table = tables.channels[channel]
                plane[cells] = table.low
                if len(table.weights) > 1:
                    plane[cells] += decoder.read(table, len(cells)).astype(np.int16)
        return symbols


class Tables:
    """A grid of tables, as three flat arrays that a bundle can store.

    Args:
        lengths: uint16 [levels, C], symbols in each table, at least 1.
        low: int16 [levels, C], the lowest symbol of each.
        weights: uint16 [sum of lengths], the tables in order. A one-symbol table stores 0.

    Raises:
        UnsupportedError: the arrays contradict each other.
    """

    def __init__(
        self, lengths: NDArray[np.uint16], low: NDArray[np.int16], weights: NDArray[np.uint16]
    ) -> None:
        kinds = [(a.dtype.name, a.ndim) for a in (lengths, low, weights)]
        if kinds != [("uint16", 2), ("int16", 2), ("uint16", 1)]:
            raise UnsupportedError(f"the bundle's entropy tables are {kinds}")
        self.lengths, self.low, self.weights = lengths, low, weights
        ends = np.cumsum(lengths.ravel(), dtype=np.int64)
        self._starts = np.concatenate([[0], ends])
        if not lengths.size or lengths.shape != low.shape or self._starts[-1] != weights.size:
            raise UnsupportedError("the bundle's entropy tables do not fit together")
        if lengths.min() < 1 or (low.astype(np.int32) + lengths - 1).max() > np.iinfo(np.int16).max:
            raise UnsupportedError("the bundle's entropy tables leave the range of int16")
        sums = np.add.reduceat(weights.astype(np.int64), self._starts[:-1])
        several = lengths.ravel() > 1
        in_several = np.repeat(several, lengths.ravel())
        if (sums[several] != TOTAL).any() or (weights[in_several] < 1).any():
            raise UnsupportedError("an entropy table of the bundle does not sum to 2^16")
        self._levels: dict[int, LevelTables] = {}

    @classmethod
    def load(cls, arrays: Mapping[str, Any], prefix: str) -> Tables:
        """From the arrays of a bundle; KeyError if one is missing."""
        return cls(*(arrays[f"{prefix}.{k}"] for k in ("lengths", "low", "weights")))

    @property
    def n_channels(self) -> int:
        """Tables a level."""
        return int(self.lengths.shape[1])

    @property
    def n_levels(self) -> int:
        """Rows of the grid."""
        return int(self.lengths.shape[0])

    def level(self, level: int) -> LevelTables:
        """The tables of one quality level (kept once made)."""
        if level not in self._levels:
            first = level * self.n_channels
            starts = self._starts[first : first + self.n_channels + 1].tolist()
            rows = [self.weights[a:b] for a, b in zip(starts, starts[1:], strict=False)]
            low = self.low[level].tolist()
            self._levels[level] = LevelTables(
                [Table(a, row) for a, row in zip(low, rows, strict=True)]
            )
        return self._levels[level]

    def at(self, levels: int | NDArray[np.uint8]) -> LevelTables | MappedTables:
        """The tables of a level, or of cells of the given levels, one each."""
        return self.level(levels) if isinstance(levels, int) else MappedTables(self, levels)

    def bundled(self) -> dict[str, Integers]:
        """All arrays of a bundle that say how its symbols are coded."""
        return self.arrays("tables")

    def arrays(self, prefix: str) -> dict[str, Integers]:
        """The three arrays, named for a bundle."""
        return {
            f"{prefix}.lengths": self.lengths,
            f"{prefix}.low": self.low,
            f"{prefix}.weights": self.weights,
        }
