"""Entropy coding of z: the range coder of constriction over integer probability tables.

The bundle holds one table a (quality level, channel): the lowest symbol and the weights of the
symbols from there on, integers >= 1 that sum to 2^16. A table of one symbol costs no bits: its
channel is not coded and decodes to that symbol. Symbols are coded channel after channel, each
channel row by row. The coded string is the coder's 32-bit words, little-endian. How weights become
the coder's 24-bit cumulatives is written down in formats/bkc-1.md.

No floating-point network is involved, so symbols decode bit-exactly on every machine. This is also
the reason why a table's probabilities are multiples of 2^-16: float32 holds them exactly.

The coder: Bamler 2022, arXiv:2201.01741 (queue.RangeEncoder).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from bkcodec.errors import FormatError, UnsupportedError

TOTAL = 2**16  # sum of a table's weights
WORD_BYTES = 4

Symbols = NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class LevelTables:
    """The tables of one quality level.

    Attributes:
        low, high: int16 [C], the smallest and largest symbol of each channel.
        weights: C arrays of integers that sum to 2^16.
    """

    low: NDArray[np.int16]
    high: NDArray[np.int16]
    weights: list[NDArray[np.uint16]]
    _models: dict[int, constriction.stream.model.Categorical] = field(default_factory=dict)

    def clamp(self, symbols: NDArray[np.floating[Any] | np.integer[Any]]) -> Symbols:
        """Limit symbols [C, h, w] to what the tables can say."""
        return np.clip(symbols, self.low[:, None, None], self.high[:, None, None]).astype(np.int16)

    def encode(self, symbols: Symbols) -> bytes:
        """Code symbols [C, h, w], all within ``low``..``high``."""
        encoder = constriction.stream.queue.RangeEncoder()
        for channel in self._coded_channels:
            shifted = symbols[channel].ravel().astype(np.int32) - int(self.low[channel])
            encoder.encode(shifted, self._model(channel))
        words: NDArray[np.uint32] = encoder.get_compressed()
        return words.astype("<u4").tobytes()

    def decode(self, data: bytes, height: int, width: int) -> Symbols:
        """Decode symbols [C, height, width].

        Raises:
            FormatError: the data cannot have come from ``encode`` with these tables.
        """
        if len(data) % WORD_BYTES:
            raise FormatError(
                f"the z section has {len(data)} bytes, not a multiple of {WORD_BYTES}"
            )
        words = np.frombuffer(data, dtype="<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        symbols = np.empty((len(self.low), height, width), dtype=np.int16)
        symbols[:] = self.low[:, None, None]
        try:
            for channel in self._coded_channels:
                shifted = decoder.decode(self._model(channel), height * width)
                symbols[channel] += shifted.reshape(height, width).astype(np.int16)
        except (AssertionError, ValueError) as error:
            raise FormatError(
                f"the z section is not a valid range-coded string: {error}"
            ) from error
        if not decoder.maybe_exhausted():
            raise FormatError("the z section goes on after its last symbol")
        return symbols

    def information(self, symbols: Symbols) -> float:
        """Ideal code length of symbols [C, h, w] under the tables, in bits."""
        bits = 0.0
        for channel in self._coded_channels:
            weights = self.weights[channel].astype(np.float64)
            index = symbols[channel].ravel().astype(np.int32) - int(self.low[channel])
            counts = np.bincount(index, minlength=len(weights))
            bits -= float(counts @ np.log2(weights / TOTAL))
        return bits

    def _model(self, channel: int) -> constriction.stream.model.Categorical:
        if channel not in self._models:
            probabilities = self.weights[channel].astype(np.float32) / np.float32(TOTAL)
            self._models[channel] = constriction.stream.model.Categorical(
                probabilities, perfect=False
            )
        return self._models[channel]

    @property
    def _coded_channels(self) -> list[int]:
        return [c for c, w in enumerate(self.weights) if len(w) > 1]


class Tables:
    """All tables of a bundle, as three flat arrays that a bundle can store.

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

    @property
    def n_channels(self) -> int:
        """Channels of z."""
        return int(self.lengths.shape[1])

    def level(self, level: int) -> LevelTables:
        """The tables of one quality level (kept once made)."""
        if level not in self._levels:
            lengths, low = self.lengths[level], self.low[level]
            first = level * self.n_channels
            ends = self._starts[first + 1 : first + self.n_channels + 1]
            rows = [self.weights[e - n : e] for e, n in zip(ends, lengths.astype(int), strict=True)]
            high = (low.astype(np.int32) + lengths - 1).astype(np.int16)
            self._levels[level] = LevelTables(low, high, rows)
        return self._levels[level]
