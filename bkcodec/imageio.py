"""Photos in and out: Pillow images <-> upright 8-bit arrays with their metadata."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, PngImagePlugin

from bkcodec.config import Limits
from bkcodec.errors import BkcError, FormatError, InputError, LimitError, UsageError
from bkcodec.metadata import (
    DECODER_ERRORS,
    EXIF_PREFIX,
    exif_block,
    turned_upright,
    xmp_block,
)
from bkcodec.streaming import CHANNELS, Rows, whole, write_png, write_ppm, write_tiff

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "ppm": "PPM",
           "tif": "TIFF", "tiff": "TIFF"}  # fmt: skip
# What a photo may come as. Pillow knows more, some of it through other programs.
INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF",
                 "JPEG2000", "TGA", "ICO", "QOI", "BKC")  # fmt: skip
_STRIP_PIXELS = 2**22  # converted at once
_LIMIT_LOCK = threading.RLock()
_PNG_HEADER = struct.Struct(">16xIIBB")  # signature and chunk head; width, height, depth, colour


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright 8-bit photo.

    Attributes:
        rgb: uint8 [H, W, 3]; three equal planes where ``greyscale``.
        alpha: uint8 [H, W] or None.
        greyscale: whether the picture is to be given back as one plane.
        icc, exif, xmp: metadata blocks as bytes, or None.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    greyscale: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


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


def open_image(
    fo: BinaryIO, limits: Limits | None = None, check: Callable[[int, int], None] | None = None
) -> Image.Image:
    """Open and fully decode an image file; the pixel limit is checked before decoding.

    Args:
        fo: the file.
        limits: what is accepted.
        check: called with width and height before decoding; may raise.

    Raises:
        InputError: not an image that Pillow reads, or damaged.
        LimitError: more pixels than allowed.
    """
    limits = limits or Limits()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's hints on odd files; ours are errors
        try:
            Image.init()
            with _our_limits():
                image = Image.open(fo, formats=[f for f in INPUT_FORMATS if f in Image.OPEN])
        except Image.DecompressionBombError as error:
            raise LimitError(f"image too large: {error}") from error
        except DECODER_ERRORS as error:
            raise InputError(
                "not an image that can be read (damaged, or an unknown type)"
            ) from error
        pixels = image.width * image.height
        if limits.max_pixels and pixels > limits.max_pixels:
            raise LimitError(
                f"{image.width} x {image.height} = {pixels} pixels, "
                f"the limit is {limits.max_pixels}. "
                "Raise it with --max-pixels if you trust the file."
            )
        if check is not None:
            check(*image.size)
        try:
            image.load()
        except DECODER_ERRORS as error:
            raise InputError(f"damaged {image.format} image: {error}") from error
        transparent, depth = image.info.get("transparency"), _png_depth(fo)
        if image.mode == "L" and isinstance(transparent, int) and depth in (2, 4):
            image.info["transparency"] = transparent * (255 // (2**depth - 1))  # as the pixels
    return image


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
    return Picture(rgb, alpha, greyscale, icc, exif, xmp)


def rows_from_picture(picture: Picture) -> Rows:
    """A picture as one band of rows."""
    colour = picture.rgb[..., :1] if picture.greyscale else picture.rgb
    planes = colour if picture.alpha is None else np.dstack([colour, picture.alpha])
    height, width, channels = planes.shape
    mode = next(mode for mode, n in CHANNELS.items() if n == channels)
    return Rows(width, height, mode, iter([planes]), picture.icc, picture.exif, picture.xmp)


def image_from_rows(rows: Rows) -> Image.Image:
    """The Pillow image (L, LA, RGB or RGBA) of all rows, metadata in ``info``."""
    pixels = whole(rows)
    image = Image.fromarray(pixels[..., 0] if rows.mode == "L" else pixels)
    blocks = {"icc_profile": rows.icc, "exif": rows.exif, "xmp": rows.xmp}
    image.info.update({name: block for name, block in blocks.items() if block})
    return image


def apply_alpha(picture: Picture, alpha: str) -> Picture:
    """Keep, drop or composite the alpha plane: "keep", "drop" or a colour.

    Raises:
        UsageError: not a colour.
    """
    colour = _background(alpha)
    if alpha == "keep" or picture.alpha is None:
        return picture
    if colour is None:
        return replace(picture, alpha=None)
    opacity = picture.alpha[..., None].astype(np.float32) / 255
    rgb = np.rint(picture.rgb * opacity + colour * (1 - opacity)).astype(np.uint8)
    grey = picture.greyscale and len(set(colour.tolist())) == 1
    icc = None if picture.greyscale and not grey else picture.icc  # it described one plane
    return replace(picture, rgb=rgb, alpha=None, greyscale=grey, icc=icc)


def check_alpha(alpha: str) -> None:
    """Refuse what is neither keep, drop nor a colour (UsageError)."""
    _background(alpha)


def _background(alpha: str) -> NDArray[np.float32] | None:
    if alpha in ("keep", "drop"):
        return None
    try:
        return np.array(ImageColor.getrgb(alpha)[:3], dtype=np.float32)
    except ValueError as error:
        raise UsageError(f"--alpha {alpha}: neither keep, drop nor a colour") from error


def alpha_to_png(alpha: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W] -> a PNG file."""
    out = io.BytesIO()
    Image.fromarray(alpha).save(out, "PNG", optimize=True)
    return out.getvalue()


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


def save_rows(rows: Rows, fo: BinaryIO, extension: str) -> None:
    """Write a picture with its metadata; ``extension`` is a key of ``FORMATS``.

    PNG, TIFF and PPM are written band by band; TIFF needs a file that can seek.

    Raises:
        UsageError: the format cannot hold the picture's alpha plane.
        InputError: the format cannot hold the picture (too large for JPEG or WebP, say).
    """
    name = FORMATS[extension]
    if rows.mode in ("LA", "RGBA") and name in ("JPEG", "PPM"):
        raise UsageError(f"{name} has no alpha plane; choose png, webp or tiff")
    try:
        WRITERS[name](rows, fo)
    except BkcError:
        raise
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, as of a full disk
        raise InputError(f"cannot be written as {name}: {error}") from error


def _write_jpeg(rows: Rows, fo: BinaryIO) -> None:
    _write_whole(rows, fo, "JPEG", EXIF_PREFIX, quality=95)


def _write_webp(rows: Rows, fo: BinaryIO) -> None:
    _write_whole(rows, fo, "WEBP", b"", lossless=True, exact=True)


def _write_whole(rows: Rows, fo: BinaryIO, name: str, exif_prefix: bytes, **kept: object) -> None:
    """By Pillow, which needs all rows at once."""
    exif = exif_prefix + rows.exif if rows.exif else None
    blocks = {"icc_profile": rows.icc, "exif": exif, "xmp": rows.xmp}
    kept |= {key: block for key, block in blocks.items() if block}
    image_from_rows(rows).save(fo, name, **kept)


WRITERS: dict[str, Callable[[Rows, BinaryIO], None]] = {
    "PNG": write_png, "TIFF": write_tiff, "PPM": write_ppm, "JPEG": _write_jpeg,
    "WEBP": _write_webp,
}  # fmt: skip


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
