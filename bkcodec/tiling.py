"""Overlapping windows, so that big images go through the networks in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bkcodec.container import padded_pixels

AUTO_PIXELS = 4_000_000  # images above this are tiled unless told otherwise
AUTO_TILE = 1536  # the fastest of 768 to 3072 for coding 9 megapixels on two cores

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
    return (slice(rows.start - above, rows.stop - above),
            slice(columns.start - left, columns.stop - left))  # fmt: skip


def scaled(slices: Slices, factor: int) -> Slices:
    """The same place on a grid ``factor`` times finer."""
    rows, columns = slices
    return (slice(rows.start * factor, rows.stop * factor),
            slice(columns.start * factor, columns.stop * factor))  # fmt: skip
