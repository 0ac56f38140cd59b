"""Image files and Pillow images to upright 8-bit pictures: what samples mean, not how they lie."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from bkcodec.errors import FormatError, InputError
from bkcodec.image import metadata as blocks
from bkcodec.image.embedded import embedded_profile
from bkcodec.image.exif import without_thumbnail
from bkcodec.image.metadata import DECODER_ERRORS
from bkcodec.image.opening import load_pixels, open_header
from bkcodec.image.picture import Picture, Pixels, filled
from bkcodec.image.profiles import (
    SRGB,
    SRGB_CURVE,
    Signal,
    is_sound,
    profile_of,
    signal_from_codes,
    space_of,
    to_srgb,
)
from bkcodec.image.tiff import TiffSamples, tiff_samples
from bkcodec.metadata import Metadata
from bkcodec.options import Limits

_STRIP_PIXELS = 2**22  # converted at once
_OTHER_ENDIAN = {"L": "B", "B": "L", "N": "B" if struct.pack("=H", 1) == b"\1\0" else "L"}
_FEW_COLOURS, _FEW_GREYS = 256, 32  # of what was drawn or written
_SMALL, _SAMPLED = 2**12, 2**14  # pixels: too few to tell; that are looked at first
_GREYSCALE = ("1", "L", "LA", "La")
_EMPTY_ALPHA = ("TGA", "ICO", "BMP", "DIB")  # often have a plane of zeros that nobody means


@dataclass(frozen=True, slots=True)
class _Facts:
    """What only an image that is not decoded yet can tell.

    Attributes:
        depth: bits per sample of a PNG, 0 elsewhere.
        codes: primaries and transfer (H.273) of a PNG or AVIF.
        low: the lower 8 bits of samples of 16.
        icc: a profile that Pillow does not see.
    """

    depth: int = 0
    codes: tuple[int, int] | None = None
    low: Image.Image | None = None
    icc: bytes | None = None


def picture_from_image(image: Image.Image, accept_damaged: bool = False) -> Picture:
    """Turn a Pillow image of any mode into an upright 8-bit picture.

    Samples of 16 bits are rounded to 8 (colours only where the image comes from a file and was not
    decoded yet: Pillow cuts them). CMYK and Lab become sRGB through their profile. Colours that a
    PNG or AVIF describes otherwise than by a profile get an equal one. What is grey is stored as
    grey, without a profile for colours. Of an animation the current frame is taken.

    Args:
        image: from a file that was opened, or made in this program; only the former is turned.
        accept_damaged: fill what is missing of a damaged file.

    Raises:
        InputError: pixels whose meaning is unknown or which 8 bits do not hold, or a damaged image.
    """
    if not image.width * image.height:
        raise InputError(f"{image.width} x {image.height} pixels: nothing to encode")
    samples = tiff_samples(image)
    facts = _facts(image)
    notes = ["damaged: what is missing was filled"] if load_pixels(image, accept_damaged) else []
    try:
        icc = image.info.get("icc_profile") or facts.icc
        icc = icc if isinstance(icc, bytes) and icc else None
        exif, xmp = blocks.exif_block(image), blocks.xmp_block(image)
        turn = blocks.turn_of(image)
        upright = _turned(_in_8_bits(image, facts, samples), turn)
        if turn is not None and exif is not None:
            exif = without_thumbnail(exif)  # it would lie on its side
        signal = _signal(image, facts, icc)
        upright, icc = _in_rgb_or_grey(upright, icc, notes)
        rgb, alpha, greyscale = _arrays(upright)
        if signal is not None:
            icc = None if signal.is_srgb else profile_of(signal, greyscale)
        greyscale, icc = _fitting(rgb, greyscale, icc, notes)
        xmp, more = blocks.of_what_is_kept(image, xmp)
        notes += more
        lost = blocks.losses(image, exif)
        if lost:
            notes.append(f"left out: {', '.join(lost)}")
    except DECODER_ERRORS as error:
        raise InputError(f"{image.mode} image that cannot be converted: {error}") from error
    if alpha is not None and not alpha.any() and image.format in _EMPTY_ALPHA:
        alpha = None
        notes.append("its alpha plane is empty and left out")
    if alpha is not None:
        alpha = None if alpha.min() == 255 else alpha
        rgb = rgb if alpha is None else filled(rgb, alpha)
    if alpha is not None and not alpha.any():
        notes.append("transparent everywhere")
    notes += _drawn(rgb, greyscale)
    return Picture(rgb, alpha, greyscale, Metadata(icc, exif, xmp), tuple(notes))


def read_picture(fo: BinaryIO, limits: Limits = Limits()) -> Picture:  # noqa: B008 (frozen)
    """The picture of an image file; the errors of ``open_header`` and ``picture_from_image``."""
    return picture_from_image(open_header(fo, limits))


def alpha_from_png(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A PNG file of exactly ``size`` (width, height) in 8-bit greyscale -> uint8 [H, W].

    Raises:
        FormatError: anything else.
    """
    try:
        factory: Any = Image.OPEN["PNG"][0]
        image = factory(io.BytesIO(data), "")
        if data[24:26] != b"\x08\x00" or image.size != size or image.mode != "L":
            raise FormatError(f"alpha plane is {image.mode} {image.size}, expected L {size}")
        return np.array(image)
    except DECODER_ERRORS as error:
        raise FormatError(f"damaged alpha plane: {error}") from error


def _facts(image: Image.Image) -> _Facts:
    """Read before the pixels are: then Pillow lets go of the file."""
    file = getattr(image, "fp", None)
    if not isinstance(image, ImageFile.ImageFile) or file is None or not image.tile:
        return _Facts()
    place, depth, codes, low = file.tell(), 0, None, None
    icc = embedded_profile(image.format, file)
    with contextlib.suppress(*DECODER_ERRORS):
        depth = _png_depth(file)
        codes = _codes(image, file)
        low = _low_bytes(image, file)
    file.seek(place)
    return _Facts(depth, codes, low, icc)


def _png_depth(file: Any) -> int:
    file.seek(0)
    head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG") else 0


def _codes(image: Image.Image, file: Any) -> tuple[int, int] | None:
    """From cICP, which comes before a PNG's pixels, or from the colr box of AVIF and HEIF."""
    if image.format == "PNG":
        place = 8
        file.seek(place)
        while head := file.read(8):
            length, kind = struct.unpack(">I4s", head)
            if kind == b"cICP":
                primaries, transfer, matrix, is_full = file.read(4)
                if matrix or not is_full:
                    raise InputError("samples of YCbCr or of limited range in PNG; convert to sRGB")
                return primaries, transfer
            if kind == b"IDAT":
                break
            place += 12 + length
            file.seek(place)
    elif image.format in ("AVIF", "HEIF"):
        file.seek(0)
        head = file.read(2**16)
        place = head.find(b"colrnclx")
        if place >= 0:
            primaries, transfer = struct.unpack_from(">HH", head, place + 8)
            return primaries, transfer
    return None


def _low_bytes(image: ImageFile.ImageFile, file: Any) -> Image.Image | None:
    """The lower bytes of samples of 16 bits: read as if their bytes came in the other order."""
    orders = {str(_raw_mode(tile)) for tile in image.tile}
    if not any(";16" in order for order in orders) or image.mode.startswith("I"):
        return None
    file.seek(0)
    factory: Any = Image.OPEN[str(image.format)][0]
    twin = factory(file, "")
    if orders == {"LA;16B"}:  # no unpacker takes the others: all four bytes, as if of RGBA
        twin._mode, order = "RGBA", "RGBA"
        twin.tile = [_with_raw_mode(tile, order) for tile in twin.tile]
        grey, alpha = twin.getchannel(1), twin.getchannel(3)
        return Image.merge("RGBA", (grey, grey, grey, alpha))
    twin.tile = [_with_raw_mode(tile, _swapped(str(_raw_mode(tile)))) for tile in twin.tile]
    twin.info.pop("transparency", None)
    twin.load()
    return Image.Image.copy(twin)


def _raw_mode(tile: Any) -> Any:
    return tile[3][0] if isinstance(tile[3], tuple) else tile[3]


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    arguments = (raw_mode, *tile[3][1:]) if isinstance(tile[3], tuple) else raw_mode
    return ImageFile._Tile(tile[0], tile[1], tile[2], arguments)


def _swapped(raw_mode: str) -> str:
    head, order = raw_mode[:-1], raw_mode[-1]
    return head + _OTHER_ENDIAN[order]


def _in_8_bits(image: Image.Image, facts: _Facts, samples: TiffSamples | None) -> Image.Image:
    """Samples rounded to 8 bits; a transparent value of more bits, or of fewer, becomes right."""
    transparent = image.info.get("transparency")
    if image.mode == "F":
        raise InputError("floating-point pixels are not supported; convert to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _grey_in_8_bits(image, samples)
    if facts.low is not None:
        return _rounded(image, facts.low, transparent)
    if image.mode == "L" and isinstance(transparent, int) and facts.depth in (2, 4):
        image = image.copy()
        image.info["transparency"] = transparent * (255 // (2**facts.depth - 1))  # as the pixels
    return image


def _rounded(image: Image.Image, low: Image.Image, transparent: Any) -> Image.Image:
    """An image of the upper 8 bits of 16, and one of the lower, as one of 8, rounded."""
    is_keyed = isinstance(transparent, tuple) and image.mode == "RGB"
    whole = Image.new("RGBA" if is_keyed else image.mode, image.size)
    for rows, part in _strips(image):
        below = low.crop((0, rows.start, low.width, rows.stop))
        values = np.asarray(part).astype(np.uint32) * 256 + np.asarray(below)
        rounded = ((values + 128) // 257).astype(np.uint8)
        if is_keyed:
            opaque = (values != np.array(transparent)).any(axis=-1)
            rounded = np.dstack([rounded, opaque.astype(np.uint8) * 255])
        whole.paste(Image.fromarray(rounded, whole.mode), (0, rows.start))
    return whole


def _grey_in_8_bits(image: Image.Image, samples: TiffSamples | None) -> Image.Image:
    """Modes I, I;16, I;16B...: to 8 bits, rounded; a transparent value becomes alpha."""
    white, is_inverted = (samples.white, samples.is_inverted) if samples else (65535, False)
    transparent = image.info.get("transparency")
    is_keyed = isinstance(transparent, int)
    grey = Image.new("LA" if is_keyed else "L", image.size)
    for rows, part in _strips(image):
        values = np.asarray(part, dtype=np.int64)
        if values.min() < 0 or values.max() > white:
            raise InputError(f"grey values outside of 0..{white}; scale them to 8 or 16 bits")
        rounded = ((values * 510 + white) // (2 * white)).astype(np.uint8)
        strip = Image.fromarray(255 - rounded if is_inverted else rounded)
        if is_keyed:
            opaque = np.where(values == transparent, 0, 255).astype(np.uint8)
            strip.putalpha(Image.fromarray(opaque))
        grey.paste(strip, (0, rows.start))
    return grey


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _signal(image: Image.Image, facts: _Facts, icc: bytes | None) -> Signal | None:
    """How samples become light where no profile says it; None where nothing does.

    PNG's cICP is above its profile, sRGB and gamma are below; an AVIF's profile is above its codes,
    but for HDR.
    """
    if facts.codes is not None:
        signal = signal_from_codes(*facts.codes)
        return signal if icc is None or image.format == "PNG" else None
    if image.format != "PNG" or icc is not None or "srgb" in image.info:
        return None
    gamma, chromaticities = image.info.get("gamma"), image.info.get("chromaticity") or ()
    exponent = 1 / float(gamma) if gamma else 0.0
    curve = (0, (exponent,)) if 0.1 < exponent < 10 else SRGB_CURVE
    return Signal(tuple(chromaticities) if is_sound(chromaticities) else SRGB, curve)


def _in_rgb_or_grey(
    image: Image.Image, icc: bytes | None, notes: list[str]
) -> tuple[Image.Image, bytes | None]:
    """An image of another kind as sRGB; the others as they are, but for multiplied alpha."""
    if image.mode in ("CMYK", "LAB"):
        fits = space_of(icc) == ("CMYK" if image.mode == "CMYK" else "Lab")
        if fits or image.mode == "LAB":
            with contextlib.suppress(ValueError):
                return to_srgb(image, icc if fits else None), None
        notes.append(f"{image.mode} without a profile that can be used: colours are approximate")
        return image.convert("RGB"), None
    if image.mode in ("YCbCr", "HSV"):
        return image.convert("RGB"), icc if image.mode == "YCbCr" else None
    if image.mode in ("RGBa", "La"):
        return image.convert("RGBA" if image.mode == "RGBa" else "LA"), icc
    return (image.convert("L") if image.mode == "1" else image), icc


def _arrays(image: Image.Image) -> tuple[Pixels, Pixels | None, bool]:
    """rgb [H, W, 3], alpha [H, W] where there is one, and whether the image is grey."""
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    alpha = np.empty((height, width), np.uint8) if _has_alpha(image) else None
    for rows, part in _strips(image):
        pixels = np.asarray(part.convert("RGB" if alpha is None else "RGBA"))
        rgb[rows] = pixels[..., :3]
        if alpha is not None:
            alpha[rows] = pixels[..., 3]
    return rgb, alpha, image.mode in _GREYSCALE or _is_grey(rgb)


def _is_grey(rgb: Pixels) -> bool:
    strips = (rgb[rows] for rows in _row_slices(*rgb.shape[:2]))
    return all((s[..., 0] == s[..., 1]).all() and (s[..., 1] == s[..., 2]).all() for s in strips)


def _fitting(
    rgb: Pixels, greyscale: bool, icc: bytes | None, notes: list[str]
) -> tuple[bool, bytes | None]:
    """A profile that fits the channels: what is grey by a profile for colours becomes sRGB."""
    space = space_of(icc)
    if space is None or space == ("grey" if greyscale else "RGB"):
        return greyscale, icc
    if greyscale and space == "RGB":
        with contextlib.suppress(ValueError):
            for rows, part in _strips(Image.fromarray(rgb)):
                grey = np.asarray(to_srgb(part, icc).convert("L"))
                rgb[rows] = grey[..., None]
            return greyscale, None
    notes.append(f"its ICC profile for {space} does not fit and is left out")
    return greyscale, None


def _drawn(rgb: Pixels, greyscale: bool) -> list[str]:
    """A word for those who would do better with a format for drawings."""
    height, width = rgb.shape[:2]
    spacing = max(1, int((height * width / _SAMPLED) ** 0.5))
    few = _FEW_GREYS if greyscale else _FEW_COLOURS
    if height * width < _SMALL or len(_colours(rgb[::spacing, ::spacing])) > few:
        return []  # nearly all photos have many among a few thousand pixels
    colours = {colour for rows in _row_slices(height, width) for colour in _colours(rgb[rows])}
    if len(colours) > few:
        return []
    return ["few colours: for text and drawings, lossless PNG or WebP is smaller and sharper"]


def _colours(rgb: Pixels) -> set[int]:
    red, green, blue = np.moveaxis(rgb, -1, 0).astype(np.uint32)
    return set(np.unique((red << 16) + (green << 8) + blue).tolist())


def _has_alpha(image: Image.Image) -> bool:
    """Also of a palette; Pillow's own question fails where a damaged file has none."""
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        return True
    return image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """An image in strips of a few million pixels: whole copies of it would be many."""
    for rows in _row_slices(image.height, image.width):
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def _row_slices(height: int, width: int) -> Iterator[slice]:
    n = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, n):
        yield slice(top, min(top + n, height))
