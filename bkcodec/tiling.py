"""A picture in cells of z: how many pixels that is, and the tiles that networks see of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bkcodec.errors import LimitError
from bkcodec.options import Limits

AUTO_PIXELS = 4_000_000  # images above this are tiled unless told otherwise
AUTO_TILE = 1536  # the fastest of 768 to 3072 for coding 9 megapixels on two cores

_PADDING_MATTERS = 2**20  # pixels

Slices = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True, slots=True)
class Window:
    """One tile: ``outer`` is what the network sees, ``core`` what is kept of it.

    All are slices (rows, columns) in cells of z: ``outer`` and ``core`` into the whole grid,
    ``inner`` into the outer window (the same place as ``core``).
    """

    outer: Slices
    core: Slices
    inner: Slices


def padded_pixels(width: int, height: int, stride: int) -> int:
    """Pixels of all cells of z: what the networks see, far more of a line than it has."""
    return -(-width // stride) * -(-height // stride) * stride**2


def check_pixels(width: int, height: int, stride: int, limits: Limits) -> None:
    """Hold a picture against the pixel limit.

    What counts are the pixels of all cells of z, which is what decoding costs: for a line of pixels
    far more than it has. Up to a million of them it does not matter, and the image's own count.

    Raises:
        LimitError: too many.
    """
    padded = padded_pixels(width, height, stride)
    counted = padded if padded > _PADDING_MATTERS else width * height
    if limits.max_pixels and counted > limits.max_pixels:
        cells = f" in cells of {stride} x {stride}" if stride > 1 else ""
        raise LimitError(
            f"{width} x {height} pixels are {counted}{cells}, the limit is {limits.max_pixels}. "
            "Raise it with --max-pixels if you trust the file."
        )


def tile_cells(tile: int | None, width: int, height: int, stride: int) -> int:
    """Side of a tile in cells: ``tile`` is in pixels, None decides by size; 0 = all in one.

    It is even, as the U-Net goes down to half the resolution.
    """
    if tile is None:
        tile = AUTO_TILE if padded_pixels(width, height, stride) > AUTO_PIXELS else 0
    return max(2, tile // (2 * stride) * 2) if tile else 0


def windows(rows: int, columns: int, side: int, halo: int) -> Iterator[Window]:
    """Cover a grid of rows x columns cells with tiles of ``side`` cells, row by row.

    Every tile sees ``halo`` more cells on each side, where the grid has them. With a halo as wide
    as the network's reach the result is that of one piece, up to float rounding.
    """
    for top in range(0, rows, side or rows):
        for left in range(0, columns, side or columns):
            row = _axis(top, side or rows, rows, halo)
            column = _axis(left, side or columns, columns, halo)
            yield Window(*((row[i], column[i]) for i in range(3)))


def _axis(start: int, side: int, end: int, halo: int) -> tuple[slice, slice, slice]:
    stop = min(start + side, end)
    low, high = max(0, start - halo), min(end, stop + halo)
    return slice(low, high), slice(start, stop), slice(start - low, stop - low)


def within(inner: Slices, outer: Slices) -> Slices:
    """The place of one window in another that contains it."""
    (rows, columns), (above, left) = inner, (outer[0].start, outer[1].start)
    return (
        slice(rows.start - above, rows.stop - above),
        slice(columns.start - left, columns.stop - left),
    )


def scaled(slices: Slices, factor: int) -> Slices:
    """The same place on a grid ``factor`` times finer."""
    rows, columns = slices
    return (
        slice(rows.start * factor, rows.stop * factor),
        slice(columns.start * factor, columns.stop * factor),
    )
