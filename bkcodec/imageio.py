"""Photos in and out: Pillow images <-> upright 8-bit arrays with their metadata."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps, PngImagePlugin, TiffImagePlugin

from bkcodec.config import Limits
from bkcodec.errors import FormatError, InputError, LimitError, UsageError

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "ppm": "PPM",
           "tif": "TIFF", "tiff": "TIFF"}  # fmt: skip
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError,
                   ArithmeticError, NotImplementedError, AttributeError)  # fmt: skip
_ORIENTATION, _EXIF_IFD, _XMP_TIFF_TAG = 0x0112, 0x8769, 700
_EXIF_PREFIX = b"Exif\x00\x00"


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


def open_image(fo: BinaryIO, limits: Limits | None = None) -> Image.Image:
    """Open and fully decode an image file; the pixel limit is checked before decoding.

    Raises:
        InputError: not an image that Pillow reads, or damaged.
        LimitError: more pixels than allowed.
    """
    limits = limits or Limits()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's hints on odd files; ours are errors
        try:
            image = Image.open(fo)
        except Image.DecompressionBombError as error:
            raise LimitError(f"image too large: {error}") from error
        except _DECODER_ERRORS as error:
            raise InputError(
                "not an image that can be read (damaged, or an unknown type)"
            ) from error
        pixels = image.width * image.height
        if limits.max_pixels and pixels > limits.max_pixels:
            raise LimitError(
                f"{image.width} x {image.height} = {pixels} pixels, "
                f"the limit is {limits.max_pixels}"
            )
        try:
            image.load()
        except _DECODER_ERRORS as error:
            raise InputError(f"damaged {image.format} image: {error}") from error
    return image


def picture_from_image(image: Image.Image) -> Picture:
    """Turn a Pillow image of any mode into an upright 8-bit picture.

    16-bit images are rounded to 8 bits; CMYK and Lab become RGB and lose their ICC profile, which
    would describe other channels. Of an animation the current frame is taken.

    Raises:
        InputError: floating-point pixels, whose range is unknown, or a damaged image.
    """
    upright, exif = _turn_upright(image)
    icc, xmp = image.info.get("icc_profile") or None, _xmp(image)
    if upright.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        upright, icc = upright.convert("RGB"), None
    elif upright.mode == "F":
        raise InputError("floating-point pixels are not supported; convert to 8 or 16 bits first")
    elif upright.mode.startswith("I"):
        upright = _from_16_bit(upright)
    elif upright.mode == "1":
        upright = upright.convert("L")
    has_alpha = upright.mode in ("LA", "PA", "RGBA", "La", "RGBa", "RGBX") or (
        "transparency" in upright.info
    )
    greyscale = upright.mode in ("L", "LA", "La")
    if upright.mode == "RGBX":
        has_alpha = False
    rgba = np.asarray(upright.convert("RGBA" if has_alpha else "RGB"))
    alpha = np.ascontiguousarray(rgba[..., 3]) if has_alpha else None
    return Picture(np.ascontiguousarray(rgba[..., :3]), alpha, greyscale, icc, exif, xmp)


def image_from_picture(picture: Picture) -> Image.Image:
    """The Pillow image (L, LA, RGB or RGBA) of a picture, metadata in ``info``."""
    planes = Image.fromarray(picture.rgb[..., 0] if picture.greyscale else picture.rgb)
    if picture.alpha is not None:
        planes.putalpha(Image.fromarray(picture.alpha))
    blocks = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp}
    planes.info.update({name: block for name, block in blocks.items() if block})
    return planes


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
    return replace(picture, rgb=rgb, alpha=None, greyscale=grey)


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
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            warnings.simplefilter("ignore")
            if image.size != size or image.mode != "L":
                raise FormatError(f"alpha plane is {image.mode} {image.size}, expected L {size}")
            return np.array(image)
    except (*_DECODER_ERRORS, Image.DecompressionBombError) as error:
        raise FormatError(f"damaged alpha plane: {error}") from error


def save_image(image: Image.Image, fo: BinaryIO, extension: str) -> None:
    """Write an image with its metadata; ``extension`` is a key of ``FORMATS``.

    Raises:
        UsageError: the format cannot hold the image's alpha plane.
        InputError: the format cannot hold the image (too large for JPEG or WebP, say).
    """
    name = FORMATS[extension]
    if image.mode in ("LA", "RGBA") and name in ("JPEG", "PPM"):
        raise UsageError(f"{name} has no alpha plane; choose png, webp or tiff")
    kept = {k: v for k, v in image.info.items() if k in ("icc_profile", "exif") and name != "PPM"}
    xmp = image.info.get("xmp") if name != "PPM" else None
    if name == "JPEG":
        kept["quality"] = 95
        if "exif" in kept:
            kept["exif"] = _EXIF_PREFIX + kept["exif"]
    elif name == "WEBP":
        kept |= {"lossless": True, "exact": True}
    if xmp and name in ("JPEG", "WEBP"):
        kept["xmp"] = xmp
    elif xmp and name == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        kept["pnginfo"] = chunks
    elif name == "TIFF":
        kept |= {
            "compression": "tiff_adobe_deflate",
            "tiffinfo": _tiff_tags(kept.pop("exif", None), xmp),
        }
    try:
        image.save(fo, name, **kept)
    except (ValueError, KeyError, struct.error) as error:
        raise InputError(f"cannot be written as {name}: {error}") from error


def _tiff_tags(
    exif: bytes | None, xmp: bytes | None
) -> Image.Exif | TiffImagePlugin.ImageFileDirectory_v2:
    tags = Image.Exif()
    if exif:
        with contextlib.suppress(*_DECODER_ERRORS):
            tags.load(exif)
    if xmp:
        tags[_XMP_TIFF_TAG] = xmp
    return tags


def _turn_upright(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """The image with its EXIF orientation applied, and its EXIF block with orientation 1.

    A block that already says so is kept to the byte. So is one that cannot be parsed: a photo is
    worth more than its metadata, and the metadata may mean something to someone.
    """
    raw = image.info.get("exif")
    block = raw.removeprefix(_EXIF_PREFIX) if isinstance(raw, bytes) else b""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            upright = ImageOps.exif_transpose(image)
            exif = image.getexif()
            turned = exif.get(_ORIENTATION, 1) != 1
            if turned or (not block and image.format == "TIFF" and exif.get_ifd(_EXIF_IFD)):
                exif[_ORIENTATION] = 1
                block = exif.tobytes().removeprefix(_EXIF_PREFIX)
        except _DECODER_ERRORS:
            upright = image
    return upright, block or None


def _xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return xmp.encode() if isinstance(xmp, str) else xmp or None


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Modes I, I;16, I;16B...: 0..65535 -> 8 bits, rounded; a transparent value becomes alpha."""
    values = np.asarray(image, dtype=np.int64)
    grey = Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
