"""What the samples of a TIFF file mean: Pillow looks at how they lie only (TIFF 6.0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image, TiffImagePlugin

from bkcodec.errors import InputError

_SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _PLANAR, _SUB_DIRECTORIES = 254, 258, 262, 284, 330
_INK_SET, _SAMPLE_FORMAT, _DNG_VERSION = 332, 339, 50706
_WHITE_IS_ZERO, _CMYK, _RAW = 0, 5, (32803, 34892)
_KNOWN = (_WHITE_IS_ZERO, 1, 2, 3, _CMYK, 6, 8)  # of photometric interpretations
_SIGNED, _PREVIEW, _SEPARATE = 2, 1, 2
_CR2 = slice(8, 10)  # where a raw file of Canon says so
RAW = "a raw file; develop it first"


@dataclass(frozen=True, slots=True)
class TiffSamples:
    """Greys of more than 8 bits.

    Attributes:
        white: the largest value that the bits of a sample hold.
        is_inverted: whether 0 is white.
    """

    white: int
    is_inverted: bool


def tiff_samples(image: Image.Image) -> TiffSamples | None:
    """Look at the tags of a TIFF image; None for other images.

    Raises:
        InputError: samples that mean something else than Pillow makes of them, or no photo.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    tags = image.tag_v2
    if _DNG_VERSION in tags or _first(tags, _PHOTOMETRIC) in _RAW or _is_cr2(image):
        raise InputError(RAW)
    if int(_first(tags, _SUBFILE_TYPE) or 0) & _PREVIEW and image.tell() == 0:
        is_raw = _SUB_DIRECTORIES in tags
        raise InputError(RAW if is_raw else "a TIFF file that begins with a preview of its image")
    photometric, bits = _first(tags, _PHOTOMETRIC), tags.get(_BITS) or (1,)
    if photometric not in (None, *_KNOWN):
        raise InputError(f"a TIFF image of an unknown kind (photometric {photometric})")
    if _SIGNED in _all(tags, _SAMPLE_FORMAT):
        raise InputError("signed samples, whose range is unknown; convert to 8 or 16 bits")
    if max(bits) > 16 and image.mode != "F":
        raise InputError(f"samples of {max(bits)} bits, whose range is unknown; convert to 16 bits")
    if max(bits) > 8 and len(bits) > 1 and _first(tags, _PLANAR) == _SEPARATE:
        raise InputError("16-bit colours in separate planes; save them interleaved, or in 8 bits")
    if photometric == _CMYK and _first(tags, _INK_SET) not in (None, 1):
        raise InputError("inks other than CMYK; convert to RGB first")
    is_inverted = photometric == _WHITE_IS_ZERO
    if is_inverted and len(bits) > 1:
        raise InputError("white-is-zero samples of several channels; convert to RGB first")
    return TiffSamples(2 ** max(bits) - 1, is_inverted)


def _all(tags: Any, tag: int) -> tuple[Any, ...]:
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _first(tags: Any, tag: int) -> Any:
    return next(iter(_all(tags, tag)), None)


def _is_cr2(image: TiffImagePlugin.TiffImageFile) -> bool:
    if image.fp is None:
        return False
    place = image.fp.tell()
    image.fp.seek(0)
    head = image.fp.read(_CR2.stop)
    image.fp.seek(place)
    return head[_CR2] == b"CR"
