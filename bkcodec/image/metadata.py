"""EXIF and XMP blocks: found in images, set upright, written back; what Pillow raises."""

from __future__ import annotations

import contextlib
import re
import struct
import warnings
from typing import Any

from PIL import Image, TiffImagePlugin, TiffTags

# What Pillow and its decoders raise on damaged input.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    AttributeError,
    RuntimeError,
    struct.error,
)

EXIF_PREFIX = b"Exif\x00\x00"  # what JPEG puts before the block
_ORIENTATION, _EXIF_IFD, _GPS_IFD, _XMP_TIFF_TAG = 0x0112, 0x8769, 0x8825, 700
_INTEROPERABILITY = 0xA005
_INTEGER_KINDS = {3: "H", 4: "I"}  # TIFF's SHORT, which orientation should be, and LONG
# Tags that describe the photo; the others describe how one TIFF file stores its pixels.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 33432)
_XMP_ORIENTATION = re.compile(
    rb"""(tiff:Orientation(?:\s*=\s*["']\s*|\s*>\s*))[2-8](\s*(?:["']|<))""", re.ASCII
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned_upright(image: Image.Image) -> Image.Image:
    """The image with the orientation of its EXIF (or XMP) block applied."""
    turn = None
    with warnings.catch_warnings(), contextlib.suppress(*DECODER_ERRORS):
        warnings.simplefilter("ignore")
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def exif_block(image: Image.Image) -> bytes | None:
    """The EXIF block with orientation 1, otherwise as it was, to the byte.

    One that cannot be parsed is kept too: it may mean something to someone. Where the file has no
    block of its own (TIFF), one is made of the tags that describe the photo.
    """
    raw = image.info.get("exif")
    if isinstance(raw, bytes):
        return _with_orientation_1(raw.removeprefix(EXIF_PREFIX)) or None
    with warnings.catch_warnings(), contextlib.suppress(*DECODER_ERRORS):
        warnings.simplefilter("ignore")
        tags = _descriptive(image.getexif())
        return tags.tobytes().removeprefix(EXIF_PREFIX) if tags else None
    return None


def xmp_block(image: Image.Image) -> bytes | None:
    """The XMP packet, with a tiff:Orientation of 1 if it has one."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes):
        return None
    return _XMP_ORIENTATION.sub(rb"\g<1>1\g<2>", xmp) or None


def tiff_tags(exif: bytes | None, xmp: bytes | None) -> TiffImagePlugin.ImageFileDirectory_v2:
    """What a TIFF file keeps of the blocks: descriptive tags, Exif and GPS directories, XMP."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if exif:
        with contextlib.suppress(*DECODER_ERRORS):
            loaded = Image.Exif()
            loaded.load(exif)
            for tag, value in _descriptive(loaded).items():
                if isinstance(value, dict):
                    value = {k: v for k, v in value.items() if _can_be_written(tag, {k: v})}
                if _can_be_written(tag, value):
                    tags[tag] = value
    if xmp:
        tags[_XMP_TIFF_TAG] = xmp
        tags.tagtype[_XMP_TIFF_TAG] = TiffTags.BYTE
    return tags


def _can_be_written(tag: int, value: Any) -> bool:
    """Whether Pillow can write a value that it has read: tags of odd types it cannot."""
    alone = TiffImagePlugin.ImageFileDirectory_v2()
    try:
        alone[tag] = value
        alone.tobytes()
    except DECODER_ERRORS:
        return False
    return True


def _descriptive(exif: Image.Exif) -> Image.Exif:
    kept = Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in exif:
            kept[tag] = exif[tag]
    for tag in (_EXIF_IFD, _GPS_IFD):
        directory = dict(exif.get_ifd(tag))
        directory.pop(_INTEROPERABILITY, None)  # a place in the old block
        if directory:
            kept[tag] = directory
    return kept


def _with_orientation_1(block: bytes) -> bytes:
    """The block with the value of its orientation tag replaced in place."""
    try:
        order = {b"II": "<", b"MM": ">"}[block[:2]]
        (directory,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, directory)
        for position in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", block, position)
            if tag == _ORIENTATION:
                if kind in _INTEGER_KINDS:
                    position, value = position + 8, struct.pack(order + _INTEGER_KINDS[kind], 1)
                else:  # what some readers make sense of: a SHORT takes its place
                    value = struct.pack(order + "HHIHH", _ORIENTATION, 3, 1, 1, 0)
                return block[:position] + value + block[position + len(value) :]
    except (KeyError, struct.error):
        pass  # not a TIFF structure: there is no orientation to correct
    return block
