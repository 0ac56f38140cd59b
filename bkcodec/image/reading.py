"""Image files to upright 8-bit pictures with their metadata."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from bkcodec.errors import FormatError, InputError, LimitError
from bkcodec.image.metadata import DECODER_ERRORS, exif_block, turned_upright, xmp_block
from bkcodec.image.picture import Picture
from bkcodec.metadata import Metadata
from bkcodec.options import Limits
from bkcodec.tiling import check_pixels

# What a photo may come as. Pillow knows more, some of it through other programs.
INPUT_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "PPM",
    "AVIF",
    "JPEG2000",
    "TGA",
    "ICO",
    "QOI",
    "BKC",
)
_STRIP_PIXELS = 2**22  # converted at once
_LIMIT_LOCK = threading.RLock()
_PNG_HEADER = struct.Struct(">16xIIBB")  # signature and chunk head; width, height, depth, colour


@contextlib.contextmanager
def _our_limits() -> Iterator[None]:
    """Replaces Pillow's limits while a header is read: ours follows for pixels.

    Pillow's are 178,956,970 pixels, and 1 MiB for a PNG's ICC profile.
    """
    with _LIMIT_LOCK:
        pixels, text = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS = None
        PngImagePlugin.MAX_TEXT_CHUNK = Limits().max_metadata_bytes
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = pixels, text


def open_image(fo: BinaryIO, limits: Limits = Limits()) -> Image.Image:  # noqa: B008 (frozen)
    """Open and fully decode an image file; the pixel limit is checked before decoding.

    Raises:
        InputError: not an image that Pillow reads, or damaged.
        LimitError: more pixels than allowed.
    """
    image = open_header(fo, limits)
    load_pixels(image, fo)
    return image


def open_header(fo: BinaryIO, limits: Limits) -> Image.Image:
    """Open an image file without decoding its pixels; the same errors as ``open_image``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's hints on odd files; ours are errors
        try:
            with _our_limits():
                image = _opened(fo)
        except Image.DecompressionBombError as error:
            raise LimitError(f"image too large: {error}") from error
        except DECODER_ERRORS as error:
            raise InputError(
                "not an image that can be read (damaged, or an unknown type)"
            ) from error
    check_pixels(*image.size, 1, limits)
    return image


def _opened(fo: BinaryIO) -> Image.Image:
    """By the usual five plugins; the others take time to load, and come if these do not know it."""

    def attempt() -> Image.Image:
        return Image.open(fo, formats=[f for f in INPUT_FORMATS if f in Image.OPEN])

    Image.preinit()
    start = fo.tell()
    try:
        return attempt()
    except UnidentifiedImageError:
        Image.init()
        fo.seek(start)
        return attempt()


def load_pixels(image: Image.Image, fo: BinaryIO) -> None:
    """Decode the pixels of an image that ``open_header`` opened in the file ``fo``.

    Raises:
        InputError: damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image.load()
        except DECODER_ERRORS as error:
            raise InputError(f"damaged {image.format} image: {error}") from error
        transparent, depth = image.info.get("transparency"), _png_depth(fo)
        if image.mode == "L" and isinstance(transparent, int) and depth in (2, 4):
            image.info["transparency"] = transparent * (255 // (2**depth - 1))  # as the pixels


def n_frames(image: Image.Image) -> int:
    """Frames or pages of an image; 1 where counting them fails."""
    with warnings.catch_warnings(), contextlib.suppress(*DECODER_ERRORS):
        warnings.simplefilter("ignore")
        return int(getattr(image, "n_frames", 1))
    return 1


def _png_depth(fo: BinaryIO) -> int:
    """Bits a sample of a PNG file; 0 for other files."""
    with contextlib.suppress(*DECODER_ERRORS):
        fo.seek(0)
        head = fo.read(_PNG_HEADER.size)
        if head.startswith(b"\x89PNG"):
            return int(_PNG_HEADER.unpack(head)[2])
    return 0


def picture_from_image(image: Image.Image) -> Picture:
    """Turn a Pillow image of any mode into an upright 8-bit picture.

    16-bit greyscale is rounded to 8 bits (16-bit colour comes from Pillow cut to 8); CMYK and Lab
    become RGB and lose their ICC profile, which would describe other channels. Of an animation the
    current frame is taken.

    Raises:
        InputError: floating-point pixels, whose range is unknown, or a damaged image.
    """
    if not image.width * image.height:
        raise InputError(f"{image.width} x {image.height} pixels: nothing to encode")
    try:
        upright = turned_upright(image)
        icc, exif, xmp = image.info.get("icc_profile"), exif_block(image), xmp_block(image)
        if upright.mode == "F":
            raise InputError("floating-point pixels are not supported; convert to 8 or 16 bits")
        if upright.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
            upright, icc = upright.convert("RGB"), None
        elif upright.mode.startswith("I"):
            upright = _from_16_bit(upright)
        elif upright.mode == "1":
            upright = upright.convert("L")
        greyscale = upright.mode in ("L", "LA")
        has_alpha = _has_alpha(upright)
        width, height = upright.size
        rgb = np.empty((height, width, 3), np.uint8)
        alpha = np.empty((height, width), np.uint8) if has_alpha else None
        for rows, part in _strips(upright):
            pixels = np.asarray(part.convert("RGB" if alpha is None else "RGBA"))
            rgb[rows] = pixels[..., :3]
            if alpha is not None:
                alpha[rows] = pixels[..., 3]
    except DECODER_ERRORS as error:
        raise InputError(f"{image.mode} image that cannot be converted: {error}") from error
    icc = icc if isinstance(icc, bytes) and icc else None
    return Picture(rgb, alpha, greyscale, Metadata(icc, exif, xmp))


def alpha_from_png(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A PNG file of exactly ``size`` (width, height) in 8-bit greyscale -> uint8 [H, W].

    Raises:
        FormatError: anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _our_limits():
                image = Image.open(io.BytesIO(data), formats=["PNG"])
            if data[24:26] != b"\x08\x00" or image.size != size or image.mode != "L":
                raise FormatError(f"alpha plane is {image.mode} {image.size}, expected L {size}")
            return np.array(image)
    except (*DECODER_ERRORS, Image.DecompressionBombError) as error:
        raise FormatError(f"damaged alpha plane: {error}") from error


def _has_alpha(image: Image.Image) -> bool:
    """Also of a palette; Pillow's own question fails where a damaged file has none."""
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        return True
    return image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """An image in strips of a few million pixels: whole copies of it would be many."""
    width, height = image.size
    n = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, n):
        bottom = min(top + n, height)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Modes I, I;16, I;16B...: 0..65535 -> 8 bits, rounded; a transparent value becomes alpha."""
    transparent = image.info.get("transparency")
    has_alpha = isinstance(transparent, int)
    grey = Image.new("LA" if has_alpha else "L", image.size)
    for rows, part in _strips(image):
        values = np.asarray(part, dtype=np.int64)
        rounded = Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8))
        if has_alpha:
            opaque = np.where(values == transparent, 0, 255).astype(np.uint8)
            rounded.putalpha(Image.fromarray(opaque))
        grey.paste(rounded, (0, rows.start))
    return grey
