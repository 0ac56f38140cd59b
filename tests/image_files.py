"""Image files made byte by byte, for tests."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png(values: np.ndarray, depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of values [H, W, samples]."""
    height, width = values.shape[:2]
    rows = values.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    for kind, body in parts:
        out += struct.pack(">I", len(body)) + kind + body
        out += struct.pack(">I", zlib.crc32(kind + body))
    return out


def tiff(values: np.ndarray, order: str = "<", **tags: object) -> bytes:
    """An uncompressed TIFF file of one strip; ``tags`` are named t256 and so on."""
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    bits = 8 * values.dtype.itemsize
    entries: dict[int, object] = {
        256: width, 257: height, 258: (bits,) * samples, 259: 1, 262: 2 if samples > 2 else 1,
        273: 8, 277: samples, 278: height, 279: values.nbytes,
    }  # fmt: skip
    entries |= {int(name[1:]): value for name, value in tags.items()}
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries[279] = len(data)
    place = 8 + len(data)
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", place) + data
    extra, table = b"", b""
    after = place + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        many = value if isinstance(value, tuple) else (value,)
        kind, code = (4, "I") if max(many) > 65535 else (3, "H")
        packed = struct.pack(f"{order}{len(many)}{code}", *many)
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack(order + "I", after + len(extra))
        table += struct.pack(order + "HHI", tag, kind, len(many)) + packed.ljust(4, b"\0")
    return out + struct.pack(order + "H", len(entries)) + table + bytes(4) + extra
