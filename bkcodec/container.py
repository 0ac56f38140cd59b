"""The .bkc container, version 1.

All integers are little-endian. A varint is an unsigned LEB128 number of at most 5 bytes, in its
shortest form, at most 2^31 - 1.

| bytes    | field        | meaning                                                            |
|----------|--------------|--------------------------------------------------------------------|
| 4        | magic        | 8B 42 4B 43 (0x8B "BKC")                                           |
| 1        | version      | 1                                                                  |
| 4        | fingerprint  | of the bundle whose tables code z                                  |
| varint   | width        | pixels, at least 1                                                 |
| varint   | height       | pixels, at least 1                                                 |
| 1        | stride       | pixels per cell of z, at least 1; z has ceil(height / stride) rows |
|          |              | and ceil(width / stride) columns                                   |
| 1        | level        | quality level, 0..200 (quality is level / 2)                       |
| ...      | sections     | until 4 bytes before the end                                       |
| 4        | crc          | CRC-32 (as in zlib) over everything before it                      |

A section is a type byte, a varint length and a payload of that length. Types from 0x80 on are
ancillary: a reader that does not know one skips it. An unknown type below 0x80 is critical and the
file is refused. No type occurs twice, known or not. Section z is always there; without a section
levels all cells of z have the file's level.

| type | name   | payload                                                                       |
|------|--------|-------------------------------------------------------------------------------|
| 0x01 | z      | the range-coded symbols of z                                                  |
| 0x02 | levels | the range-coded level map: an offset to level for each block of 4 x 4 cells   |
| 0x81 | alpha  | a PNG file, 8-bit greyscale, width x height: the alpha plane                  |
| 0x82 | icc    | packed ICC profile                                                            |
| 0x83 | exif   | packed EXIF block, as in PNG's eXIf chunk; its orientation is 1               |
| 0x84 | xmp    | packed XMP packet                                                             |
| 0x85 | hints  | varint: 1 + timestep at which denoising starts, 0 = the bundle's; varint: seed |
| 0x86 | layout | one byte, 1: the image is greyscale: (19595 R + 38470 G + 7471 B + 32768) >> 16 |

Packed data is one byte, 0 or 1, and the data as they are (0) or as one zlib stream (1). A packed
block unpacks to 1 byte at least and, in this implementation, 16 MiB at most.

The length of the sections and of the file agree to the byte: no holes, no trailers.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from bkcodec.errors import FormatError, LimitError, UnsupportedError
from bkcodec.files import read_limited, read_whole
from bkcodec.metadata import NO_METADATA, Metadata
from bkcodec.options import MAX_LEVEL, Limits
from bkcodec.remote import Url
from bkcodec.tiling import check_pixels, padded_pixels

MAGIC = b"\x8bBKC"
VERSION = 1
VARINT_MAX = 2**31 - 1
METADATA_MAX = Limits().max_metadata_bytes

Z, LEVEL_MAP = 0x01, 0x02
ALPHA, ICC, EXIF, XMP, HINTS, LAYOUT = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86
_FIRST_ANCILLARY = 0x80
_GREYSCALE = b"\x01"
_FIXED = struct.Struct("<4sB4s")
_CRC = struct.Struct("<I")
_HEAD = 32  # bytes with all of the fixed fields
_PIXEL_BYTES, _REST_BYTES = 16, 2**26  # see longest()


@dataclass(frozen=True, slots=True)
class Container:
    """The parsed content of a .bkc file; see the module's docstring for the fields."""

    fingerprint: bytes
    width: int
    height: int
    stride: int
    level: int
    z: bytes
    level_map: bytes | None = None
    alpha: bytes | None = None
    metadata: Metadata = NO_METADATA
    timestep: int | None = None
    seed: int = 0
    greyscale: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def z_shape(self) -> tuple[int, int]:
        """Rows and columns of z."""
        return -(-self.height // self.stride), -(-self.width // self.stride)


def write_container(container: Container, fo: BinaryIO) -> None:
    """Write a container to a binary file object."""
    fo.write(container_to_bytes(container))


def read_container(fo: BinaryIO, limits: Limits | None = None) -> Container:
    """Read a container from a binary file object, to its end.

    Raises:
        FormatError: not a .bkc file, or a damaged one.
        UnsupportedError: a newer version or an unknown critical section.
        LimitError: more pixels, file bytes or metadata bytes than ``limits`` allows.
    """
    limits = limits or Limits()
    return container_from_bytes(read_file(fo, limits), limits)


def read_file(fo: BinaryIO, limits: Limits) -> bytes:
    """The bytes of a container from a binary file object, to its end; not more than it can need.

    Raises:
        LimitError: too long for its picture, or at all.
    """
    return read_limited(fo, lambda head: longest(head, limits), MAGIC)


def read_path(path: Path | Url | None, limits: Limits) -> bytes:
    """The same from a path, a URL or standard input (None); for errors see also ``read_whole``."""
    return read_whole(path, lambda head: longest(head, limits), MAGIC)


def container_to_bytes(c: Container) -> bytes:
    """Serialise a container."""
    out = io.BytesIO()
    out.write(_FIXED.pack(MAGIC, VERSION, c.fingerprint))
    out.write(_varint(c.width) + _varint(c.height) + bytes([c.stride, c.level]))
    _write_section(out, Z, c.z)
    if c.level_map is not None:
        _write_section(out, LEVEL_MAP, c.level_map)
    if c.alpha is not None:
        _write_section(out, ALPHA, c.alpha)
    blocks = ((ICC, c.metadata.icc), (EXIF, c.metadata.exif), (XMP, c.metadata.xmp))
    for kind, block in blocks:
        if block and len(block) > METADATA_MAX:
            raise LimitError(f"a metadata block of {len(block)} bytes is over {METADATA_MAX}")
        if block:
            _write_section(out, kind, _pack(block))
    if c.timestep is not None or c.seed:
        timestep = 0 if c.timestep is None else 1 + c.timestep
        _write_section(out, HINTS, _varint(timestep) + _varint(c.seed))
    if c.greyscale:
        _write_section(out, LAYOUT, _GREYSCALE)
    out.write(_CRC.pack(zlib.crc32(out.getvalue())))
    return out.getvalue()


def longest(head: bytes, limits: Limits) -> int:
    """Bytes that a file may have which begins like this, so that a small picture's is not huge.

    A symbol takes a few bits and a value of alpha 8: 16 bytes for a pixel of its cells and 64 MiB
    for the rest are more than any encoder writes.
    """
    try:
        body = _Cursor(head, _FIXED.size, len(head))
        width, height, stride = body.varint("width"), body.varint("height"), body.byte("stride")
        pixels = padded_pixels(width, height, max(1, stride))
    except FormatError:  # said where all of it is read
        return limits.max_file_bytes
    return min(limits.max_file_bytes, _PIXEL_BYTES * pixels + _REST_BYTES)


def extra_bytes(container: Container) -> dict[str, int]:
    """What alpha and metadata take in the file, in bytes, by name; only what there is."""
    blocks = asdict(container.metadata).items()
    sizes = {name: len(_pack(block)) for name, block in blocks if block}
    return sizes | ({"alpha": len(container.alpha)} if container.alpha is not None else {})


def container_from_bytes(data: bytes, limits: Limits | None = None) -> Container:
    """Parse a container; the same errors as ``read_container``."""
    limits, data = limits or Limits(), bytes(data)
    if len(data) > longest(data[:_HEAD], limits):
        raise LimitError(f"file larger than the limit of {longest(data[:_HEAD], limits)} bytes")
    if not data.startswith(MAGIC):
        raise FormatError("not a .bkc file (wrong magic bytes)")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise UnsupportedError(
            f".bkc version {data[len(MAGIC)]}, this program reads {VERSION}. Upgrade bkcodec."
        )
    if len(data) < _FIXED.size + _CRC.size:
        raise FormatError(f"truncated .bkc file ({len(data)} bytes)")
    (stored,) = _CRC.unpack_from(data, len(data) - _CRC.size)
    actual = zlib.crc32(memoryview(data)[: -_CRC.size])
    if stored != actual:
        raise FormatError(
            f"checksum mismatch (stored {stored:08x}, computed {actual:08x}): corrupt or truncated"
        )
    body = _Cursor(data, _FIXED.size, len(data) - _CRC.size)
    width, height = body.varint("width"), body.varint("height")
    stride, level = body.byte("stride"), body.byte("level")
    if not width or not height or not stride:
        raise FormatError(f"width {width}, height {height}, stride {stride}: none may be 0")
    if level > MAX_LEVEL:
        raise FormatError(f"quality level {level} is above {MAX_LEVEL}")
    check_pixels(width, height, stride, limits)
    sections = _read_sections(body)
    if Z not in sections:
        raise FormatError("the file has no z section")
    timestep, seed = _parse_hints(sections.get(HINTS))
    layout = sections.get(LAYOUT)
    if layout is not None and bytes(layout) != _GREYSCALE:
        raise FormatError(f"unknown layout {bytes(layout[:8]).hex()}")
    return Container(
        fingerprint=data[5:9],
        width=width,
        height=height,
        stride=stride,
        level=level,
        z=bytes(sections[Z]),
        level_map=bytes(sections[LEVEL_MAP]) if LEVEL_MAP in sections else None,
        alpha=bytes(sections[ALPHA]) if ALPHA in sections else None,
        metadata=Metadata(
            icc=_unpack("icc", sections.get(ICC), limits),
            exif=_unpack("exif", sections.get(EXIF), limits),
            xmp=_unpack("xmp", sections.get(XMP), limits),
        ),
        timestep=timestep,
        seed=seed,
        greyscale=layout is not None,
    )


class _Cursor:
    """A bounded reading position; every read is checked against the end."""

    def __init__(self, data: bytes | memoryview, start: int, end: int) -> None:
        self._view, self._position, self._end = memoryview(data), start, end

    @property
    def left(self) -> int:
        return self._end - self._position

    def take(self, n: int, what: str) -> memoryview:
        if n > self.left:
            raise FormatError(f"{what} needs {n} bytes, {self.left} are left")
        start, self._position = self._position, self._position + n
        return self._view[start : start + n]

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (shift and not byte) or value > VARINT_MAX:
                    break
                return value
        raise FormatError(f"{what} is not a shortest-form varint of at most {VARINT_MAX}")


def _read_sections(body: _Cursor) -> dict[int, memoryview]:
    sections: dict[int, memoryview] = {}
    while body.left:
        kind = body.byte("section type")
        payload = body.take(body.varint("section length"), f"section 0x{kind:02x}")
        if kind in sections:
            raise FormatError(f"section 0x{kind:02x} occurs twice")
        if kind not in (Z, LEVEL_MAP) and kind < _FIRST_ANCILLARY:
            raise UnsupportedError(f"unknown critical section 0x{kind:02x}. Upgrade bkcodec.")
        sections[kind] = payload
    return sections


def _parse_hints(payload: memoryview | None) -> tuple[int | None, int]:
    if payload is None:
        return None, 0
    cursor = _Cursor(payload, 0, len(payload))
    timestep, seed = cursor.varint("timestep"), cursor.varint("seed")
    if cursor.left:
        raise FormatError(f"{cursor.left} bytes too many in the hints section")
    return (timestep - 1 if timestep else None), seed


@lru_cache(maxsize=8)  # a search for a size asks for the same blocks again and again
def _pack(block: bytes) -> bytes:
    deflated = zlib.compress(block, 9)
    return b"\x01" + deflated if len(deflated) < len(block) else b"\x00" + block


def _unpack(name: str, payload: memoryview | None, limits: Limits) -> bytes | None:
    if payload is None:
        return None
    cursor = _Cursor(payload, 0, len(payload))
    method = cursor.byte(name)
    packed = bytes(cursor.take(cursor.left, name))
    if method == 0:
        block = packed
    elif method == 1:
        inflater = zlib.decompressobj()
        try:
            block = inflater.decompress(packed, limits.max_metadata_bytes + 1)
        except zlib.error as error:
            raise FormatError(f"{name} section: {error}") from error
        if len(block) <= limits.max_metadata_bytes and (not inflater.eof or inflater.unused_data):
            raise FormatError(f"{name} section: zlib stream incomplete or followed by other bytes")
    else:
        raise FormatError(f"{name} section: unknown packing {method}")
    if len(block) > limits.max_metadata_bytes:
        raise LimitError(f"{name} section unpacks to over {limits.max_metadata_bytes} bytes")
    if not block:
        raise FormatError(f"{name} section is empty")
    return block


def _write_section(out: BinaryIO, kind: int, payload: bytes) -> None:
    out.write(bytes([kind]) + _varint(len(payload)) + payload)


def _varint(value: int) -> bytes:
    if not 0 <= value <= VARINT_MAX:
        raise LimitError(f"{value} does not fit a varint (at most {VARINT_MAX})")
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    out.append(value)
    return bytes(out)
