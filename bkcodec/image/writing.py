"""Pictures to image files: PNG, TIFF and PPM from bands of rows, so that none need be whole.

Pillow writes whole pictures only. What is ours here is the outer structure: chunks of PNG (W3C PNG
specification, third edition) and strips of TIFF 6.0. Filters of PNG rows and directories of TIFF
are Pillow's.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import accumulate
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin, TiffTags

from bkcodec.errors import BkcError, InputError, UsageError
from bkcodec.image.metadata import DECODER_ERRORS, tiff_tags
from bkcodec.image.picture import (
    BAND_BYTES,
    CHANNELS,
    Pixels,
    Rows,
    image_from_pixels,
    image_from_rows,
)
from bkcodec.metadata import EXIF_PREFIX

FORMATS = {
    "png": "PNG",
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "webp": "WEBP",
    "ppm": "PPM",
    "tif": "TIFF",
    "tiff": "TIFF",
}
WHOLE = ("jpg", "jpeg", "webp")  # of them, those that Pillow writes from all rows at once
PNG_EFFORT, JPEG_QUALITY = 1, 95
FULL_COLOUR = 90  # from this JPEG quality on, colours keep their resolution
_SEGMENT = 2**16 - 3  # bytes that a segment of JPEG holds
_XMP_HEAD = 29  # of them, before an XMP packet
_PNG_COLOURS = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ICC_TAG, _DEFLATE, _HORIZONTAL, _UNASSOCIATED = 34675, 8, 2, 2


def write_png(rows: Rows, fo: BinaryIO, effort: int = PNG_EFFORT) -> None:
    """Write a PNG file.

    An ``effort`` of 1 looks for runs only, which decoded photos compress by nearly as much; 2 to 9
    are levels of zlib. On six decoded Kodak photos 6 took 8 times as long for 4 % fewer bytes.
    """
    fo.write(_PNG_SIGNATURE)
    colour = _PNG_COLOURS[rows.mode]
    _chunk(fo, b"IHDR", struct.pack(">IIBBBBB", rows.width, rows.height, 8, colour, 0, 0, 0))
    if rows.metadata.icc:
        _chunk(fo, b"iCCP", b"ICC Profile\0\0" + zlib.compress(rows.metadata.icc))
    if rows.metadata.exif:
        _chunk(fo, b"eXIf", rows.metadata.exif)
    if rows.metadata.xmp:
        text = rows.metadata.xmp.decode("utf-8", "replace").encode()
        _chunk(fo, b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + text)
    strategy = zlib.Z_RLE if effort <= PNG_EFFORT else zlib.Z_FILTERED
    deflater = zlib.compressobj(effort, strategy=strategy)
    above = None
    for band in rows.narrow():
        _chunk(fo, b"IDAT", deflater.compress(_filtered(above, band)))
        above = band[-1:]
    _chunk(fo, b"IDAT", deflater.flush())
    _chunk(fo, b"IEND", b"")


def _chunk(fo: BinaryIO, kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":
        fo.write(struct.pack(">I", len(data)) + kind + data)
        fo.write(struct.pack(">I", zlib.crc32(kind + data)))


def _filtered(above: Pixels | None, band: Pixels) -> bytes:
    """PNG's filtered rows of a band that follows the row ``above``: Pillow chooses the filters.

    It is given both as a picture of their own, which it does not compress; the first row goes.
    """
    together = band if above is None else np.concatenate([above, band])
    out = io.BytesIO()
    image_from_pixels(together).save(out, "PNG", compress_level=0)
    data, position, parts = out.getvalue(), len(_PNG_SIGNATURE), []
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += length + 12
    rows = zlib.decompress(b"".join(parts))
    return rows[len(rows) // len(together) * (len(together) - len(band)) :]


def write_tiff(rows: Rows, fo: BinaryIO) -> None:
    """Write a TIFF file of deflated strips into a file that can seek.

    The directory comes first, as large as it will be, and is written again when the strips' sizes
    are known.

    Raises:
        ValueError, struct.error: beyond TIFF's 4 GiB, or metadata that TIFF cannot hold.
    """
    channels = CHANNELS[rows.mode]
    strip = max(1, BAND_BYTES // (rows.width * channels))
    strips = -(-rows.height // strip)
    tags = tiff_tags(rows.metadata.exif, rows.metadata.xmp)
    for tag, value in (
        (TiffImagePlugin.IMAGEWIDTH, rows.width),
        (TiffImagePlugin.IMAGELENGTH, rows.height),
        (TiffImagePlugin.BITSPERSAMPLE, (8,) * channels),
        (TiffImagePlugin.COMPRESSION, _DEFLATE),
        (TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 2 if channels > 2 else 1),
        (TiffImagePlugin.SAMPLESPERPIXEL, channels),
        (TiffImagePlugin.ROWSPERSTRIP, strip),
        (TiffImagePlugin.PLANAR_CONFIGURATION, 1),
        (TiffImagePlugin.PREDICTOR, _HORIZONTAL),
    ):
        tags[tag] = value
    if channels in (2, 4):
        tags[TiffImagePlugin.EXTRASAMPLES] = _UNASSOCIATED
    if rows.metadata.icc:
        tags.tagtype[_ICC_TAG] = TiffTags.UNDEFINED
        tags[_ICC_TAG] = rows.metadata.icc
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


def alpha_to_png(alpha: Pixels) -> bytes:
    """uint8 [H, W] -> a PNG file."""
    out = io.BytesIO()
    Image.fromarray(alpha).save(out, "PNG", optimize=True)
    return out.getvalue()


def writable(rows: Rows, extension: str) -> tuple[Rows, list[str]]:
    """What a format can hold of a picture, and what is said of the rest.

    JPEG's EXIF and XMP are of 64 KiB at most, PPM has no metadata at all.
    """
    metadata, limits = rows.metadata, {"exif": math.inf, "xmp": math.inf, "icc": math.inf}
    if FORMATS[extension] == "JPEG":
        limits = {"exif": _SEGMENT - len(EXIF_PREFIX), "xmp": _SEGMENT - _XMP_HEAD, "icc": math.inf}
    elif FORMATS[extension] == "PPM":
        limits = dict.fromkeys(limits, 0)
    sizes = {name: len(block) for name, block in asdict(metadata).items() if block}
    lost = [name for name, n in sizes.items() if n > limits[name]]
    notes = [f"left out: {name.upper()} of {sizes[name]:,} bytes" for name in lost]
    return replace(rows, metadata=metadata.without(lost)), notes


def save_rows(
    rows: Rows,
    fo: BinaryIO,
    extension: str,
    png_effort: int = PNG_EFFORT,
    jpeg_quality: int = JPEG_QUALITY,
) -> None:
    """Write a picture with its metadata.

    PNG, TIFF and PPM are written band by band; TIFF needs a file that can seek.

    Args:
        rows: the picture.
        fo: a binary file object.
        extension: a key of ``FORMATS``.
        png_effort: see ``write_png``; for other formats it means nothing.
        jpeg_quality: 1..100; for other formats it means nothing.

    Raises:
        UsageError: the format cannot hold the picture's alpha plane.
        InputError: the format cannot hold the picture (too large for JPEG or WebP, say).
    """
    name = FORMATS[extension]
    if rows.mode in ("LA", "RGBA") and name in ("JPEG", "PPM"):
        raise UsageError(
            f"{name} has no alpha plane; choose png, webp or tiff, or a background with "
            "--alpha white"
        )
    try:
        if name == "PNG":
            write_png(rows, fo, png_effort)
        elif name == "JPEG":
            subsampling = 0 if jpeg_quality >= FULL_COLOUR else 2  # 4:4:4, 4:2:0
            _write_whole(rows, fo, name, quality=jpeg_quality, subsampling=subsampling)
        elif name == "WEBP":
            _write_whole(rows, fo, name, lossless=True, exact=True)
        elif name == "TIFF":
            write_tiff(rows, fo)
        else:
            write_ppm(rows, fo)
    except BkcError:
        raise
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, as of a full disk
        raise InputError(f"cannot be written as {name}: {error}") from error


def _write_whole(rows: Rows, fo: BinaryIO, name: str, **kept: object) -> None:
    """By Pillow, which needs all rows at once."""
    from bkcodec.image.profiles import grey_to_srgb, space_of

    image, metadata = image_from_rows(rows), rows.metadata
    if name == "WEBP" and space_of(metadata.icc) == "grey":  # WebP has colours only
        with contextlib.suppress(ValueError):
            image = grey_to_srgb(image, metadata.icc)
        metadata = metadata.without(["icc"])
    image.save(fo, name, **metadata.for_pillow(), **kept)
