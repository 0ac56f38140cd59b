"""The structure of a PNG file (W3C specification, third edition): whether all rows are there."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by type of colour
# Adam7: first row and column of each pass, and the distances.
_PASSES = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)),
    (1, 0, 2, 1),
)
_PIECE = 2**20  # bytes that are inflated at once


def lacks_rows(fo: IO[bytes]) -> bool:
    """Whether the pixels of the first picture end early; it is inflated for that.

    Raises:
        OSError, struct.error, KeyError, zlib.error: not a whole PNG file.
    """
    expected, inflater = 0, zlib.decompressobj()
    for kind, data in _chunks(fo):
        if kind == b"IHDR":
            expected = _n_bytes(*struct.unpack(">IIBBBBB", data))
        elif kind == b"IDAT":
            while data and expected > 0:
                expected -= len(inflater.decompress(data, _PIECE))
                data = inflater.unconsumed_tail
        elif kind == b"IEND":
            break
    return expected > 0


def _chunks(fo: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    fo.seek(8)
    while head := fo.read(8):
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IHDR", b"IDAT"):
            yield kind, fo.read(length)
            fo.seek(4, 1)
        else:
            yield kind, b""
            fo.seek(length + 4, 1)


def _n_bytes(
    width: int, height: int, depth: int, colour: int, _method: int, _filter: int, interlace: int
) -> int:
    """Bytes of all rows, with their filters."""
    bits = depth * _CHANNELS[colour]
    passes = _PASSES if interlace else ((0, 0, 1, 1),)
    total = 0
    for top, left, down, across in passes:
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total
