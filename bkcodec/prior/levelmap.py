"""Level maps: quality that differs over the picture.

A map is an offset to the file's quality level for every block of 4 x 4 cells of z (64 pixels in the
bundle ``lite``), row by row from the top left. A cell has the level of its block. Without a map all
cells have the file's level.

In the file an offset is coded as its difference d from what its neighbours let expect: 0 for the
first block, the left block's offset in the first row, the upper one's in the first column, else
the median of left, above and left + above - (above left). d = 0 is class 0; a difference of n
bits, 1 to 9, is class 2 n - 1 where d > 0 and 2 n where d < 0, and its bits below the highest
follow, all equally likely. Classes have one of two adaptive tables: the second where left, above
and above left are there and differ, the first elsewhere. A table counts, from 16 for class 0 and 1
for the others, 16 more for each class that it codes; a class of count n of a total of t has the
weight 1 + floor(n * (2^16 - 19) / t), and the first of the largest gets what is missing to 2^16.
The coder is that of z (formats/bkc-1.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bkcodec.errors import FormatError, UsageError
from bkcodec.options import MAX_LEVEL
from bkcodec.prior.tables import TOTAL, RangeDecoder, RangeEncoder, Table

BLOCK = 4  # cells along a block
_BITS = 9  # of a difference of two offsets, at most 2 * 200
_CLASSES = 2 * _BITS + 1
_STEP = 16  # by which a count grows

Offsets = NDArray[np.int16]
Levels = NDArray[np.uint8]


def map_shape(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of blocks for so many rows and columns of cells."""
    return -(-rows // BLOCK), -(-columns // BLOCK)


def cell_levels(level: int, offsets: Offsets, rows: int, columns: int) -> Levels:
    """The level of each cell [rows, columns].

    Raises:
        UsageError: a map of another size, or a level beyond 0..200.
    """
    if offsets.shape != map_shape(rows, columns):
        expected = map_shape(rows, columns)
        raise UsageError(f"a level map of {offsets.shape} blocks; the picture has {expected}")
    levels = level + offsets.astype(np.int64)
    if levels.min() < 0 or levels.max() > MAX_LEVEL:
        reached = f"levels {levels.min()} to {levels.max()}"
        raise UsageError(f"a level map reaches {reached}, not within 0..{MAX_LEVEL}")
    cells = levels.astype(np.uint8).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return cells[:rows, :columns]


def write_map(offsets: Offsets) -> bytes:
    """Code offsets [rows, columns], each within -200..200."""
    encoder, model = RangeEncoder(), _Classes()
    for row, column in np.ndindex(*offsets.shape):
        expected, table = _expectation(offsets, row, column)
        difference = int(offsets[row, column]) - expected
        size = abs(difference)
        n_bits = size.bit_length()
        kind = 2 * n_bits - (difference > 0)
        encoder.write(model.table(table), np.array([kind], np.int32))
        model.count(table, kind)
        if n_bits:
            encoder.write_bits(size - (1 << (n_bits - 1)), n_bits - 1)
    return encoder.to_bytes()


def read_map(payload: bytes, level: int, rows: int, columns: int) -> Levels:
    """The level of each cell, from the payload of a file of that level with such a z.

    Raises:
        FormatError: not what ``write_map`` makes for so many cells and this level.
    """
    return cell_levels(level, read_offsets(payload, level, rows, columns), rows, columns)


def read_offsets(payload: bytes, level: int, rows: int, columns: int) -> Offsets:
    """The same as offsets of blocks."""
    decoder, model = RangeDecoder(payload, "levels"), _Classes()
    offsets = np.zeros(map_shape(rows, columns), np.int16)
    for row, column in np.ndindex(*offsets.shape):
        expected, table = _expectation(offsets, row, column)
        kind = int(decoder.read(model.table(table), 1)[0])
        model.count(table, kind)
        n_bits = (kind + 1) // 2
        size = (1 << (n_bits - 1)) + decoder.read_bits(n_bits - 1) if n_bits else 0
        offset = expected + (size if kind % 2 else -size)
        if not 0 <= level + offset <= MAX_LEVEL:
            raise FormatError(f"the level map says level {level + offset}")
        offsets[row, column] = offset
    decoder.finish()
    return offsets


class _Classes:
    """The two adaptive tables."""

    def __init__(self) -> None:
        self._counts = np.ones((2, _CLASSES), np.int64)
        self._counts[:, 0] = _STEP

    def table(self, index: int) -> Table:
        counts = self._counts[index]
        weights = 1 + counts * (TOTAL - _CLASSES) // counts.sum()
        weights[np.argmax(weights)] += TOTAL - weights.sum()
        return Table(0, weights.astype(np.uint16))

    def count(self, index: int, kind: int) -> None:
        self._counts[index, kind] += _STEP


def _expectation(offsets: Offsets, row: int, column: int) -> tuple[int, int]:
    """What the neighbours let expect, and which table codes the class."""
    left = int(offsets[row, column - 1]) if column else None
    above = int(offsets[row - 1, column]) if row else None
    if left is None or above is None:
        return left or above or 0, 0
    corner = int(offsets[row - 1, column - 1])
    expected = sorted((left, above, left + above - corner))[1]
    return expected, int(not left == above == corner)
