"""Metadata of images: found, set upright, written into TIFF, listed where it is lost."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from PIL import Image, ImageFile, IptcImagePlugin, TiffImagePlugin, TiffTags

from bkcodec.files import printable
from bkcodec.image.exif import GPS_IFD, ORIENTATION, upright, without_gps, without_thumbnail
from bkcodec.metadata import EXIF_PREFIX, Metadata
from bkcodec.options import METADATA

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

_EXIF_IFD, _XMP_TIFF_TAG, _IPTC_TAG, _RESOLUTION = 0x8769, 700, 33723, 282
_INTEROPERABILITY = 0xA005
# Tags that describe how one TIFF file stores its pixels, or large blocks of one program.
_STRUCTURAL = frozenset(
    (*range(254, 270), *range(273, 282), *range(284, 296), 297, 301, *range(317, 340), 347)
    + (*range(512, 522), *range(529, 533), _XMP_TIFF_TAG, 34016, 34377, 34675, 37724)
)
_NOT_DESCRIPTIVE = _STRUCTURAL | {ORIENTATION, _EXIF_IFD, GPS_IFD}
_XMP_ORIENTATION = re.compile(
    rb"""(tiff:Orientation(?:\s*=\s*["']\s*|\s*>\s*))[2-8](\s*(?:["']|<))""", re.ASCII
)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_GAIN_MAP_PREFIX = re.compile(
    rb"""xmlns:(\w+)\s*=\s*["']http://ns\.adobe\.com/hdr-gain-map""", re.ASCII
)


def _named(names: bytes) -> re.Pattern[bytes]:
    """Attributes and elements of an XMP packet whose names match, namespaces included."""
    return re.compile(
        rb"""\s+(?:%b)\s*=\s*(?:"[^"]*"|'[^']*')|<(%b)\b(?:[^>]*/>|.*?</\1\s*>)""" % (names, names),
        re.ASCII | re.DOTALL,
    )


_GAIN_MAP = rb"(?:xmlns:)?(?:%b)(?::\w+)?|Container:Directory"
# Of exif, of drones, under any prefix.
_GPS_IN_XMP = _named(
    rb"[\w-]+:(?:\w*G[Pp][Ss]\w*|\w*(?:[Ll]atitude|[Ll]ongt?itude|[Aa]ltitude)\w*)"
)
_MOTION = _named(rb"GCamera:(?:MotionPhoto|MicroVideo)\w*")
_MOTION_MARKS = (b"GCamera:MotionPhoto", b"GCamera:MicroVideo")
_EXTENDED = _named(rb"xmpNote:HasExtendedXMP")
_EXTENSION = b"http://ns.adobe.com/xmp/extension/"
_GAIN_MAP_MARKS = (b"http://ns.adobe.com/hdr-gain-map", b"HDRGainMap")
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496"
_NO_TEXTS = {"XML:com.adobe.xmp", "Raw profile type exif"}
_USUAL_RESOLUTIONS = (1, 72, 96)  # which programs write when they know none
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How the orientation of its EXIF (or XMP) block wants an image to be turned.

    Only what comes from a file is turned: other images were made from one in this program, and are
    as their makers want them.
    """
    if isinstance(image, ImageFile.ImageFile):
        with contextlib.suppress(*DECODER_ERRORS):
            raw = image.info.get("exif")
            if isinstance(raw, bytes) and raw.startswith(2 * EXIF_PREFIX):
                exif = Image.Exif()
                exif.load(_bare(raw))
            else:
                exif = image.getexif()
            return _TURNS.get(exif.get(ORIENTATION, 1))
    return None


def exif_block(image: Image.Image) -> bytes | None:
    """The EXIF block with orientation 1, otherwise as it was, to the byte.

    One that cannot be parsed is kept too: it may mean something to someone. Where the file has no
    block of its own (TIFF), one is made of the tags that describe the photo.
    """
    raw = image.info.get("exif")
    if isinstance(raw, bytes):
        return upright(_bare(raw)) or None
    with contextlib.suppress(*DECODER_ERRORS):
        tags = _descriptive(image.getexif())
        return tags.tobytes().removeprefix(EXIF_PREFIX) if tags else None
    return None


def _bare(raw: bytes) -> bytes:
    """A block without its prefix, which some write twice, or where it does not belong."""
    while raw.startswith(EXIF_PREFIX):
        raw = raw.removeprefix(EXIF_PREFIX)
    return raw


def xmp_block(image: Image.Image) -> bytes | None:
    """The XMP packet, with a tiff:Orientation of 1 if it has one."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes):
        return None
    if xmp.startswith(_UTF_16):
        xmp = xmp.decode("utf-16", "replace").encode()
    return _XMP_ORIENTATION.sub(rb"\g<1>1\g<2>", xmp) or None


def has_gain_map(image: Image.Image, xmp: bytes | None) -> bool:
    """Whether the file has a second picture that makes of this one an HDR picture."""
    if any(mark in (xmp or b"") for mark in _GAIN_MAP_MARKS):
        return True
    return any(data.startswith(_ISO_GAIN_MAP) for _, data in getattr(image, "applist", []))


def without_gain_map(xmp: bytes | None) -> bytes | None:
    """The packet without what it says of a gain map."""
    if not xmp:
        return xmp
    prefixes = {b"hdrgm", b"HDRGainMap", *_GAIN_MAP_PREFIX.findall(xmp)}
    return _named(_GAIN_MAP % b"|".join(sorted(prefixes))).sub(b"", xmp)


def of_what_is_kept(image: Image.Image, xmp: bytes | None) -> tuple[bytes | None, list[str]]:
    """The packet without claims of what a .bkc does not hold, and a word for each of these."""
    notes = []
    if has_gain_map(image, xmp):
        xmp = without_gain_map(xmp)
        notes.append("its gain map (HDR) is left out")
    if any(mark in (xmp or b"") for mark in _MOTION_MARKS):
        xmp = _MOTION.sub(b"", xmp or b"")
        notes.append("its video (motion photo) is left out")
    if any(data.startswith(_EXTENSION) for _, data in getattr(image, "applist", [])):
        xmp = _EXTENDED.sub(b"", xmp or b"")
        notes.append("the extended part of its XMP is left out")
    return xmp or None, notes


def stripped(metadata: Metadata, kinds: Collection[str]) -> Metadata:
    """The same without some of "icc", "exif", "xmp", "gps" and "thumbnail"."""
    metadata = metadata.without(kind for kind in kinds if kind in METADATA)
    exif, xmp = metadata.exif, metadata.xmp
    if "gps" in kinds:
        exif = without_gps(exif) if exif else None
        xmp = _GPS_IN_XMP.sub(b"", xmp or b"") or None
    if "thumbnail" in kinds and exif:
        exif = without_thumbnail(exif)
    return replace(metadata, exif=exif, xmp=xmp)


def losses(image: Image.Image, exif: bytes | None) -> list[str]:
    """What else a file says, for which .bkc has no place."""
    lost = []
    if _has_iptc(image):
        lost.append("IPTC")
    dpi: Any = image.info.get("dpi")
    with contextlib.suppress(*DECODER_ERRORS):
        parsed = Image.Exif()
        parsed.load(exif or b"")
        resolution = round(float(dpi[0]))
        if resolution not in _USUAL_RESOLUTIONS and _RESOLUTION not in parsed:
            lost.append(f"resolution ({resolution} dpi)")
    if image.info.get("comment"):
        lost.append("comment")
    texts = sorted(set(getattr(image, "text", {})) - _NO_TEXTS) if image.format == "PNG" else []
    if texts:
        lost.append(f"texts ({', '.join(printable(text)[:20] for text in texts[:4])})")
    return lost


def _has_iptc(image: Image.Image) -> bool:
    if image.format not in ("JPEG", "MPO"):
        return False  # a TIFF file's is one of its tags, which are kept
    with contextlib.suppress(*DECODER_ERRORS):
        return bool(IptcImagePlugin.getiptcinfo(image))  # type: ignore[arg-type]
    return False


def tiff_tags(exif: bytes | None, xmp: bytes | None) -> TiffImagePlugin.ImageFileDirectory_v2:
    """What a TIFF file keeps of the blocks: descriptive tags, Exif and GPS directories, XMP."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if exif:
        with contextlib.suppress(*DECODER_ERRORS):
            loaded = Image.Exif()
            loaded.load(exif)
            for tag, value in _descriptive(loaded).items():
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
    for tag, value in exif.items():
        if tag not in _NOT_DESCRIPTIVE and _can_be_written(tag, value):
            kept[tag] = value
    for tag in (_EXIF_IFD, GPS_IFD):
        directory = dict(exif.get_ifd(tag))
        directory.pop(_INTEROPERABILITY, None)  # a place in the old block
        directory = {k: v for k, v in directory.items() if _can_be_written(tag, {k: v})}
        if directory:
            kept[tag] = directory
    return kept
