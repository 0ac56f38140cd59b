"""Photos as arrays: whole, or band by band."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from bkcodec.metadata import NO_METADATA, Metadata

Pixels = NDArray[np.uint8]
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
BAND_BYTES = 2**22  # of pixels that are filtered and compressed at once


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright 8-bit photo.

    Attributes:
        rgb: uint8 [H, W, 3]; three equal planes where ``greyscale``.
        alpha: uint8 [H, W] or None.
        greyscale: whether the picture is to be given back as one plane.
        metadata: what came with it.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    greyscale: bool = False
    metadata: Metadata = NO_METADATA

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """An upright 8-bit picture that comes band by band, once.

    Attributes:
        width, height: in pixels.
        mode: L, LA, RGB or RGBA.
        bands: uint8 [n, width, channels] each, from top to bottom.
        metadata: what goes with it.
    """

    width: int
    height: int
    mode: str
    bands: Iterator[Pixels]
    metadata: Metadata = NO_METADATA

    def narrow(self) -> Iterator[Pixels]:
        """The bands cut into narrower ones of a few megabytes."""
        n = max(1, BAND_BYTES // (self.width * CHANNELS[self.mode]))
        for band in self.bands:
            for top in range(0, len(band), n):
                yield band[top : top + n]

    def whole(self) -> Pixels:
        """All rows in one array, uint8 [height, width, channels]."""
        pixels = np.empty((self.height, self.width, CHANNELS[self.mode]), np.uint8)
        top = 0
        for band in self.bands:
            pixels[top : top + len(band)] = band
            top += len(band)
        return pixels


def rows_from_picture(picture: Picture) -> Rows:
    """A picture as one band of rows."""
    colour = picture.rgb[..., :1] if picture.greyscale else picture.rgb
    planes = colour if picture.alpha is None else np.dstack([colour, picture.alpha])
    height, width, channels = planes.shape
    mode = next(mode for mode, n in CHANNELS.items() if n == channels)
    return Rows(width, height, mode, iter([planes]), picture.metadata)


def image_from_rows(rows: Rows) -> Image.Image:
    """The Pillow image (L, LA, RGB or RGBA) of all rows, metadata in ``info``."""
    image = image_from_pixels(rows.whole())
    image.info.update(rows.metadata.for_pillow())
    return image


def image_from_pixels(pixels: Pixels) -> Image.Image:
    """The Pillow image of uint8 [H, W, channels]."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def apply_alpha(picture: Picture, alpha: str) -> Picture:
    """Keep, drop or composite the alpha plane: "keep", "drop" or a colour."""
    if alpha == "keep" or picture.alpha is None:
        return picture
    if alpha == "drop":
        return replace(picture, alpha=None)
    colour = np.array(ImageColor.getrgb(alpha)[:3], np.float32)
    rgb = np.empty_like(picture.rgb)
    for row, below, opacity in zip(rgb, picture.rgb, picture.alpha, strict=True):
        share = opacity[:, None].astype(np.float32) / 255
        row[:] = np.rint(below * share + colour * (1 - share))
    grey = picture.greyscale and len(set(colour.tolist())) == 1
    metadata = picture.metadata
    if picture.greyscale and not grey:
        metadata = metadata.without(["icc"])  # it described one plane
    return replace(picture, rgb=rgb, alpha=None, greyscale=grey, metadata=metadata)
