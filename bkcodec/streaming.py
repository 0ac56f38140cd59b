"""PNG, TIFF and PPM files written from bands of rows, so that no picture need be whole in memory.

Pillow writes whole pictures only. What is ours here is the outer structure: chunks of PNG (W3C PNG
specification, third edition) and strips of TIFF 6.0. Filters of PNG rows and directories of TIFF
are Pillow's.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags

from bkcodec.metadata import tiff_tags

Pixels = NDArray[np.uint8]
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_BAND_BYTES = 2**22  # of pixels that are filtered and compressed at once
_PNG_COLOURS = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ICC_TAG, _DEFLATE, _HORIZONTAL, _UNASSOCIATED = 34675, 8, 2, 2


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """An upright 8-bit picture that comes band by band, once.

    Attributes:
        width, height: in pixels.
        mode: L, LA, RGB or RGBA.
        bands: uint8 [n, width, channels] each, from top to bottom.
        icc, exif, xmp: metadata blocks as bytes, or None.
    """

    width: int
    height: int
    mode: str
    bands: Iterator[Pixels]
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def narrow(self) -> Iterator[Pixels]:
        """The bands cut into narrower ones of a few megabytes."""
        n = max(1, _BAND_BYTES // (self.width * CHANNELS[self.mode]))
        for band in self.bands:
            for top in range(0, len(band), n):
                yield band[top : top + n]


def write_png(rows: Rows, fo: BinaryIO) -> None:
    """Write a PNG file."""
    fo.write(_PNG_SIGNATURE)
    colour = _PNG_COLOURS[rows.mode]
    _chunk(fo, b"IHDR", struct.pack(">IIBBBBB", rows.width, rows.height, 8, colour, 0, 0, 0))
    if rows.icc:
        _chunk(fo, b"iCCP", b"ICC Profile\0\0" + zlib.compress(rows.icc))
    if rows.exif:
        _chunk(fo, b"eXIf", rows.exif)
    if rows.xmp:
        text = rows.xmp.decode("utf-8", "replace").encode()
        _chunk(fo, b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + text)
    deflater = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
    above = None
    for band in rows.narrow():
        _chunk(fo, b"IDAT", deflater.compress(_filtered(above, band, rows.mode)))
        above = band[-1:]
    _chunk(fo, b"IDAT", deflater.flush())
    _chunk(fo, b"IEND", b"")


def _chunk(fo: BinaryIO, kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":
        fo.write(struct.pack(">I", len(data)) + kind + data)
        fo.write(struct.pack(">I", zlib.crc32(kind + data)))


def _filtered(above: Pixels | None, band: Pixels, mode: str) -> bytes:
    """PNG's filtered rows of a band that follows the row ``above``: Pillow chooses the filters.

    It is given both as a picture of their own, which it does not compress; the first row goes.
    """
    together = band if above is None else np.concatenate([above, band])
    out = io.BytesIO()
    _image(together, mode).save(out, "PNG", compress_level=0)
    data, position, parts = out.getvalue(), len(_PNG_SIGNATURE), []
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += length + 12
    rows = zlib.decompress(b"".join(parts))
    return rows[len(rows) // len(together) * (len(together) - len(band)) :]


def _image(pixels: Pixels, mode: str) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)


def write_tiff(rows: Rows, fo: BinaryIO) -> None:
    """Write a TIFF file of deflated strips into a file that can seek.

    The directory comes first, as large as it will be, and is written again when the strips' sizes
    are known.

    Raises:
        ValueError, struct.error: beyond TIFF's 4 GiB, or metadata that TIFF cannot hold.
    """
    channels = CHANNELS[rows.mode]
    strip = max(1, _BAND_BYTES // (rows.width * channels))
    strips = -(-rows.height // strip)
    tags = tiff_tags(rows.exif, rows.xmp)
    for tag, value in (
        (TiffImagePlugin.IMAGEWIDTH, rows.width), (TiffImagePlugin.IMAGELENGTH, rows.height),
        (TiffImagePlugin.BITSPERSAMPLE, (8,) * channels),
        (TiffImagePlugin.COMPRESSION, _DEFLATE),
        (TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 2 if channels > 2 else 1),
        (TiffImagePlugin.SAMPLESPERPIXEL, channels), (TiffImagePlugin.ROWSPERSTRIP, strip),
        (TiffImagePlugin.PLANAR_CONFIGURATION, 1), (TiffImagePlugin.PREDICTOR, _HORIZONTAL),
    ):  # fmt: skip
        tags[tag] = value
    if channels in (2, 4):
        tags[TiffImagePlugin.EXTRASAMPLES] = _UNASSOCIATED
    if rows.icc:
        tags.tagtype[_ICC_TAG] = TiffTags.UNDEFINED
        tags[_ICC_TAG] = rows.icc
    for tag in (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS):
        tags.tagtype[tag] = TiffTags.LONG
        tags[tag] = (0,) * strips
    begin = tags.save(fo)
    counts = []
    for band in _of_height(rows.narrow(), strip):
        data = zlib.compress(_differences(band))
        fo.write(data)
        counts.append(len(data))
    starts = accumulate(counts[:-1], initial=0)  # save() adds where the directory ends
    tags[TiffImagePlugin.STRIPOFFSETS] = tuple(starts)
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = tuple(counts)
    fo.seek(0)
    if tags.save(fo) != begin:
        raise ValueError("the directory changed its size")
    fo.seek(0, io.SEEK_END)


def _of_height(bands: Iterator[Pixels], height: int) -> Iterator[Pixels]:
    """The same rows in bands of one height; only the last may have fewer."""
    rest: list[Pixels] = []
    for band in bands:
        rest.append(band)
        while sum(map(len, rest)) >= height:
            joined = np.concatenate(rest)
            yield joined[:height]
            rest = [joined[height:]]
    if sum(map(len, rest)):
        yield np.concatenate(rest)


def _differences(band: Pixels) -> bytes:
    """TIFF's horizontal predictor: each sample less the one to its left."""
    out = band.copy()
    out[:, 1:] -= band[:, :-1]
    return out.tobytes()


def write_ppm(rows: Rows, fo: BinaryIO) -> None:
    """Write a PGM or PPM file, which has neither alpha nor metadata."""
    magic = {"L": "P5", "RGB": "P6"}[rows.mode]
    fo.write(f"{magic}\n{rows.width} {rows.height}\n255\n".encode())
    for band in rows.bands:
        fo.write(np.ascontiguousarray(band).tobytes())


def whole(rows: Rows) -> Pixels:
    """All rows in one array, uint8 [height, width, channels]."""
    pixels = np.empty((rows.height, rows.width, CHANNELS[rows.mode]), np.uint8)
    top = 0
    for band in rows.bands:
        pixels[top : top + len(band)] = band
        top += len(band)
    return pixels
