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
        notes: what somebody should know of how it was read.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    greyscale: bool = False
    metadata: Metadata = NO_METADATA
    notes: tuple[str, ...] = ()

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


def reduced(picture: Picture, max_side: int | None) -> Picture:
    """A picture whose longer side is at most so many pixels (Lanczos); None = as it is."""
    width, height = picture.size
    if max_side is None or max(width, height) <= max_side:
        return picture
    factor = max_side / max(width, height)
    size = max(1, round(width * factor)), max(1, round(height * factor))

    def resized(plane: Pixels) -> Pixels:
        return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS))

    alpha = None if picture.alpha is None else resized(picture.alpha)
    return replace(picture, rgb=resized(picture.rgb), alpha=alpha)


def apply_alpha(picture: Picture, alpha: str) -> Picture:
    """Keep, drop or composite the alpha plane: "keep", "drop" or a colour."""
    if alpha == "keep" or picture.alpha is None:
        return picture
    if alpha == "drop":
        return replace(picture, alpha=None)
    colour = _colour(alpha)
    rgb = np.empty_like(picture.rgb)
    for row, below, opacity in zip(rgb, picture.rgb, picture.alpha, strict=True):
        row[:] = _blended(below, opacity[:, None], colour)
    grey = picture.greyscale and len(set(colour.tolist())) == 1
    metadata = picture.metadata
    if picture.greyscale and not grey:
        metadata = metadata.without(["icc"])  # it described one plane
    return replace(picture, rgb=rgb, alpha=None, greyscale=grey, metadata=metadata)


def flattened(rows: Rows, alpha: str) -> Rows:
    """The same choices for a picture that comes in bands."""
    if alpha == "keep" or rows.mode not in ("LA", "RGBA"):
        return rows
    if alpha == "drop":
        bands = (band[..., :-1] for band in rows.bands)
        return replace(rows, mode=rows.mode[:-1], bands=bands)
    colour = _colour(alpha)
    is_grey = rows.mode == "LA" and len(set(colour.tolist())) == 1
    metadata = rows.metadata if is_grey or rows.mode == "RGBA" else rows.metadata.without(["icc"])

    def blend(band: Pixels) -> Pixels:
        n = 1 if is_grey else 3
        return _blended(
            np.broadcast_to(band[..., :-1], (*band.shape[:2], n)), band[..., -1:], colour[:n]
        )

    narrow = map(blend, rows.narrow())
    return replace(rows, mode="L" if is_grey else "RGB", bands=narrow, metadata=metadata)


def _colour(name: str) -> NDArray[np.float32]:
    return np.array(ImageColor.getrgb(name)[:3], np.float32)


def _blended(pixels: Pixels, opacity: Pixels, colour: NDArray[np.float32]) -> Pixels:
    share = opacity.astype(np.float32) / 255
    blended: Pixels = np.rint(pixels * share + colour * (1 - share)).astype(np.uint8)
    return blended


def filled(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Colours that nobody sees, under alpha 0, replaced by those around.

    What programs leave there costs bytes and bleeds into what is seen. Averages of ever larger
    squares are filled in, the smallest that has something visible (pull and push).

    Args:
        rgb: uint8 [H, W, 3].
        alpha: uint8 [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    if alpha.min() > 0 or not alpha.any():
        return rgb if alpha.any() else np.zeros_like(rgb)
    height, width = alpha.shape
    halves = -(-height // 2), -(-width // 2)
    sums, weights = np.empty((*halves, 3), np.float32), np.empty(halves, np.float32)
    for i in range(halves[0]):
        rows = slice(2 * i, 2 * i + 2)
        weight = alpha[rows].astype(np.float32)
        sums[i] = _summed(rgb[rows] * weight[..., None])
        weights[i] = _summed(weight[..., None])[..., 0]
    around = Image.fromarray(np.rint(_averages(sums, weights)).astype(np.uint8))
    around = around.resize((2 * halves[1], 2 * halves[0]), Image.Resampling.BILINEAR)
    out = np.array(around)[:height, :width]
    np.copyto(out, rgb, where=(alpha > 0)[..., None])
    return out


def _summed(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """One or two rows [n, W, c] -> sums of squares of two by two pixels [ceil(W / 2), c]."""
    total: NDArray[np.float32] = rows.sum(axis=0)
    total = np.pad(total, ((0, len(total) % 2), (0, 0)))
    summed: NDArray[np.float32] = total.reshape(-1, 2, total.shape[-1]).sum(axis=1)
    return summed


def _averages(sums: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums [h, w, 3] over their weights [h, w]; where there are none, from a coarser grid."""
    averages: NDArray[np.float32] = sums / np.maximum(weights, 1e-6)[..., None]
    if weights.min() > 0:
        return averages
    height, width = weights.shape
    pairs = range(0, height, 2)
    coarse = np.stack([_summed(sums[i : i + 2]) for i in pairs])
    coarse_weights = np.stack([_summed(weights[i : i + 2, :, None])[..., 0] for i in pairs])
    around = _averages(coarse, coarse_weights)
    for channel in range(3):
        plane = Image.fromarray(around[..., channel])
        size = 2 * around.shape[1], 2 * around.shape[0]
        plane = plane.resize(size, Image.Resampling.BILINEAR)
        fine = np.asarray(plane)[:height, :width]
        np.copyto(averages[..., channel], fine, where=weights == 0)
    return averages
