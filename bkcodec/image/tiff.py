"""What the samples of a TIFF file mean: Pillow looks at how they lie only (TIFF 6.0)."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, BinaryIO

from PIL import Image, ImagePalette, TiffImagePlugin

from bkcodec.errors import InputError

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 258, 259, 262
_STRIPS, _ROWS, _STRIP_BYTES, _PLANAR, _SUB_DIRECTORIES = 273, 278, 279, 284, 330
_ACROSS, _DOWN, _TILES = 322, 323, 324
_COLOURS, _INK_SET, _SAMPLE_FORMAT, _SUBSAMPLING, _REFERENCE = 320, 332, 339, 530, 532
_DNG_VERSION = 50706
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE, _CMYK, _YCBCR, _RAW = 0, 1, 3, 5, 6, (32803, 34892)
_KNOWN = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, 2, _PALETTE, _CMYK, _YCBCR, 8)  # photometric
_SIGNED, _PREVIEW, _MASK, _OLD_PREVIEW, _SEPARATE, _UNCOMPRESSED = 2, 1, 4, 2, 2, 1
_FULL_RANGE = (0, 255, 128, 255, 128, 255)  # of YCbCr
_MAX_DIRECTORIES = 32  # that are looked into for raw data
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
    if _DNG_VERSION in tags or _is_cr2(image) or any(p in _RAW for p in _photometrics(image)):
        raise InputError(RAW)
    kind, old_kind = int(_first(tags, _SUBFILE_TYPE) or 0), _first(tags, _OLD_SUBFILE_TYPE)
    if image.tell() == 0 and (kind & _PREVIEW or old_kind == _OLD_PREVIEW):
        is_raw = _SUB_DIRECTORIES in tags
        raise InputError(RAW if is_raw else "a TIFF file that begins with a preview of its image")
    if kind & _MASK:
        raise InputError("a TIFF file that begins with the mask of its image")
    _make_plain(image)
    photometric, bits = _first(tags, _PHOTOMETRIC), tags.get(_BITS) or (1,)
    if photometric not in _KNOWN:
        raise InputError(f"a TIFF image of an unknown kind (photometric {photometric})")
    if photometric == _YCBCR and _first(tags, _COMPRESSION) == _UNCOMPRESSED:
        _check_ycbcr(tags)
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


def lacks_rows(image: Image.Image) -> bool:
    """Whether strips or tiles of a TIFF image without compression are missing, or strips short."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    tiles, across, down = _all(tags, _TILES), _first(tags, _ACROSS), _first(tags, _DOWN)
    if tiles and across and down:
        return 0 in tiles or len(tiles) < -(-image.width // across) * -(-image.height // down)
    starts, sizes = _all(tags, _STRIPS), _all(tags, _STRIP_BYTES)
    if _first(tags, _COMPRESSION) not in (None, _UNCOMPRESSED) or not starts:
        return False
    bits = tags.get(_BITS) or (1,)
    is_separate = len(bits) > 1 and _first(tags, _PLANAR) == _SEPARATE
    row = -(-image.width * (bits[0] if is_separate else sum(bits)) // 8)
    height = min(_first(tags, _ROWS) or image.height, image.height)
    rows = [min(height, image.height - top) for top in range(0, image.height, height)]
    rows *= len(bits) if is_separate else 1
    if len(starts) < len(rows) or 0 in starts:
        return True
    return len(sizes) >= len(rows) and any(n < row * m for n, m in zip(sizes, rows, strict=False))


def directories(
    fo: BinaryIO | IO[bytes], below: bool = False
) -> Iterator[dict[int, tuple[int, ...]]]:
    """The directories of a TIFF or BigTIFF file, one after the other: whole numbers by tag.

    At most the first four values of each tag. ``below``: those of sub-images too.
    """
    reader = _Reader(fo)
    waiting, seen = [reader.first], {0}
    while waiting:
        place = waiting.pop()
        if place not in seen:
            seen.add(place)
            tags, following = reader.directory(place)
            yield tags
            waiting += [following, *(tags.get(_SUB_DIRECTORIES, ()) if below else ())]


def _photometrics(image: TiffImagePlugin.TiffImageFile) -> set[int]:
    """What the pixels of a file mean, in all directories, those of its sub-images included."""
    found = {int(_first(image.tag_v2, _PHOTOMETRIC) or 0)}
    if image.fp is None:
        return found
    place = image.fp.tell()
    with contextlib.suppress(struct.error, KeyError, ValueError, OSError, OverflowError):
        for tags in islice(directories(image.fp, below=True), _MAX_DIRECTORIES):
            found |= set(tags.get(_PHOTOMETRIC, ())[:1])
    image.fp.seek(place)
    return found


class _Reader:
    """Reads directories; each method may raise struct.error, KeyError, ValueError, OSError."""

    _KINDS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
    _MOST = 4  # values of a tag

    def __init__(self, fo: Any) -> None:
        self.fo = fo
        fo.seek(0)
        head = fo.read(16)
        self.order = {b"II": "<", b"MM": ">"}[head[:2]]
        self.is_big = struct.unpack(self.order + "H", head[2:4])[0] == 43
        self.word = "Q" if self.is_big else "I"
        self.inline = struct.calcsize("=" + self.word)
        (self.first,) = struct.unpack_from(self.order + self.word, head, 8 if self.is_big else 4)

    def directory(self, place: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """Whole numbers by tag, and the place of the next directory."""
        self.fo.seek(place)
        entry = struct.Struct(f"{self.order}HH{self.word}{self.inline}s")
        n = self._number("Q" if self.is_big else "H")
        data = self.fo.read(entry.size * min(n, 2**16))
        following = self._number(self.word)
        tags = {
            tag: self._values(self._KINDS[kind], count, value)
            for tag, kind, count, value in entry.iter_unpack(data)
            if kind in self._KINDS
        }
        return tags, following

    def _values(self, kind: str, count: int, value: bytes) -> tuple[int, ...]:
        layout = self.order + kind * min(count, self._MOST)
        if struct.calcsize("=" + kind) * count > self.inline:
            self.fo.seek(struct.unpack(self.order + self.word, value)[0])
            value = self.fo.read(struct.calcsize(layout))
        return struct.unpack_from(layout, value)

    def _number(self, kind: str) -> int:
        layout = self.order + kind
        (value,) = struct.unpack(layout, self.fo.read(struct.calcsize(layout)))
        return int(value)


def _make_plain(image: TiffImagePlugin.TiffImageFile) -> None:
    """What may be written in two ways becomes what Pillow expects."""
    tags, is_changed = image.tag_v2, False
    samples = len(tags.get(_BITS) or (1,))
    if _first(tags, _PHOTOMETRIC) is None:  # which is required; most readers take it like this
        tags[_PHOTOMETRIC], is_changed = 2 if samples > 2 else _BLACK_IS_ZERO, True
    if samples == 1 and _first(tags, _PLANAR) == _SEPARATE:  # one plane is one plane
        tags[_PLANAR], is_changed = 1, True
    if is_changed and image.tile:
        image._setup()
    colours = _all(tags, _COLOURS)
    if image.mode == "P" and colours and max(colours) < 256:  # as some old programs wrote them
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _check_ycbcr(tags: Any) -> None:
    """Refuse what Pillow would take for three full samples a pixel (InputError)."""
    if _all(tags, _SUBSAMPLING) not in ((), (1, 1)):
        raise InputError("YCbCr with fewer samples of colour, uncompressed; convert to RGB")
    reference = tuple(round(float(value)) for value in _all(tags, _REFERENCE))
    if reference and reference != _FULL_RANGE:
        raise InputError("YCbCr of limited range; convert to RGB")


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
