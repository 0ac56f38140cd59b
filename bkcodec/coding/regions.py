"""From what people mark in a picture to offsets of a level map (``bkcodec.prior.levelmap``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bkcodec.errors import UsageError
from bkcodec.options import AS_ASKED, MAX_LEVEL, EncodeOptions, quality_to_level
from bkcodec.prior.levelmap import BLOCK, Levels, Offsets, cell_levels, map_shape, write_map

_SAMPLES = 8  # of a grey map along a block; it is scaled to so many before blocks take means


def offsets_of(
    options: EncodeOptions,
    marked: tuple[int, int],
    size: tuple[int, int],
    stride: int,
    ready: Offsets | None = None,
) -> Offsets | None:
    """The offsets of all blocks, or None where nothing was marked.

    Every block that a region touches is the region's; of several regions the last one counts. The
    map's offset is its mean over the block, and is added.

    Args:
        options: with the regions, in pixels of the picture that they were marked in, and the map.
        marked: width and height of that picture.
        size: width and height of the one that is coded, which may be a reduced copy.
        stride: pixels along a cell.
        ready: offsets that somebody made, instead.

    Raises:
        UsageError: a region that reaches beyond the picture; offsets that do not fit.
    """
    cells = -(-size[1] // stride), -(-size[0] // stride)
    if ready is not None:
        return _checked(ready, options, cells)
    if not options.regions and options.quality_map is None:
        return None
    offsets = np.zeros(map_shape(*cells), np.int64)
    side = BLOCK * stride
    for region in options.regions:
        region.check(*marked)
        left, right = _blocks(region.x, region.width, size[0] / marked[0] / side)
        top, bottom = _blocks(region.y, region.height, size[1] / marked[1] / side)
        offsets[top:bottom, left:right] = quality_to_level(region.steps)
    if options.quality_map is not None:
        offsets += _map_offsets(options.quality_map, size, side)
    return offsets.clip(-MAX_LEVEL, MAX_LEVEL).astype(np.int16)


def added(one: Offsets | None, other: Offsets | None) -> Offsets | None:
    """The sum of two maps, as far as an offset goes."""
    if one is None or other is None:
        return other if one is None else one
    both = one.astype(np.int64) + other
    return both.clip(-MAX_LEVEL, MAX_LEVEL).astype(np.int16)


def _checked(offsets: Offsets, options: EncodeOptions, cells: tuple[int, int]) -> Offsets:
    if options.has_map:
        raise UsageError("a level map goes without another map")
    if offsets.shape != map_shape(*cells):
        raise UsageError(f"a level map of {offsets.shape} blocks; needed are {map_shape(*cells)}")
    if not options.has_target:
        cell_levels(options.level, offsets, *cells)
    return offsets


def mapped(
    level: int, offsets: Offsets | None, cells: tuple[int, int]
) -> tuple[int | Levels, bytes | None]:
    """The levels of all cells, and their map in the file, for a base level.

    What would be below or above the scale is at its end.
    """
    if offsets is None or not offsets.any():
        return level, None
    cut = ((level + offsets.astype(np.int64)).clip(0, MAX_LEVEL) - level).astype(np.int16)
    if not cut.any():
        return level, None
    return cell_levels(level, cut, *cells), write_map(cut)


def _blocks(begin: int, length: int, scale: float) -> tuple[int, int]:
    """The first block of an interval of pixels, and the one behind its last."""
    first, end = begin * scale, (begin + length) * scale
    return int(first), max(int(first) + 1, int(np.ceil(end - 1e-9)))


def _map_offsets(grey_map: Image.Image, size: tuple[int, int], side: int) -> NDArray[np.int64]:
    step = side // _SAMPLES
    samples = -(-size[0] // step), -(-size[1] // step)
    try:
        grey_map = grey_map.convert("L")
    except ValueError as error:  # Lab, or closed
        raise UsageError(f"quality_map: cannot be made grey: {error}") from error
    grey = np.asarray(grey_map.resize(samples, Image.Resampling.BOX), np.float64)
    edges = [(0, -n % _SAMPLES) for n in grey.shape]
    padded = np.pad(grey, edges, mode="edge")
    blocks = padded.reshape(len(padded) // _SAMPLES, _SAMPLES, -1, _SAMPLES).mean(axis=(1, 3))
    offsets: NDArray[np.int64] = np.rint(blocks - AS_ASKED).astype(np.int64)
    return offsets
