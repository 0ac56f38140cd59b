"""A level map that a picture makes for itself: bits go where they buy the most similarity.

The picture is decoded at two levels. What structural similarity gains from one to the other in a
block of the map, over what its symbols grow by, is what a bit is worth there. The levels of blocks
follow the logarithm of that, as far as a standard deviation of it goes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bkcodec import machine
from bkcodec.metrics import WINDOW, Pixels, halved, similarity
from bkcodec.prior.levelmap import BLOCK, Offsets
from bkcodec.prior.tables import Symbols

TRIALS = 75, 120  # levels of the two decodings
STRENGTH = 5  # levels for a standard deviation of the worth
MOST = 2.5  # standard deviations
GRAIN = 4  # offsets are multiples of it: finer maps cost more than they bring
SCALES = (0.2, 0.4, 0.4)  # weights of the full, half and quarter picture
_BYTES = 45  # for each pixel
_MIN_SIDE = 44  # pixels: the window of similarity fits into a quarter of it

Plane = NDArray[np.float32]
Decode = Callable[[int], tuple[Symbols, Pixels]]


def own_offsets(rgb: Pixels, stride: int, decode: Decode) -> Offsets | None:
    """The offsets of all blocks; None for pictures that are too small to have any.

    Args:
        rgb: the picture, uint8 [H, W, 3].
        stride: pixels along a cell.
        decode: its symbols and its decoded picture [H, W, 3] at a level.

    Raises:
        LimitError: not enough memory.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < _MIN_SIDE or max(height, width) <= BLOCK * stride:
        return None
    machine.require(_BYTES * height * width)
    original, side = _luma(rgb), BLOCK * stride
    losses, sizes = [], []
    for level in TRIALS:
        symbols, decoded = decode(level)
        losses.append(_losses(original, _luma(decoded), side))
        sizes.append(_means(np.log2(1 + np.abs(symbols.astype(np.float32))).sum(axis=0), BLOCK))
    gains = np.maximum(losses[0] - losses[1], 1e-5)
    worth = np.log(gains / np.maximum(sizes[1] - sizes[0], 1e-2))
    return _rounded(worth)


def _rounded(worth: Plane) -> Offsets:
    spread = float(worth.std())
    relative = (worth - worth.mean()) / spread if spread else np.zeros_like(worth)
    steps = np.rint(relative.clip(-MOST, MOST) * STRENGTH / GRAIN)
    offsets: Offsets = (GRAIN * steps).astype(np.int16)
    return offsets


def _losses(one: Plane, other: Plane, side: int) -> Plane:
    """What similarity lacks of 1 in each block."""
    total: Plane | None = None
    for scale, weight in enumerate(SCALES):
        if scale:
            one, other = halved(one), halved(other)
        luminance, structure = similarity(one, other)
        lack = np.pad(np.maximum(1 - luminance * structure, 0), WINDOW // 2, mode="edge")
        part = weight * _means(lack, side >> scale)
        total = part if total is None else total + part[: total.shape[0], : total.shape[1]]
    assert total is not None
    return total


def _means(plane: Plane, side: int) -> Plane:
    """Of squares of so many values; those at the edges have their last ones repeated."""
    padded = np.pad(plane, [(0, -n % side) for n in plane.shape], mode="edge")
    rows, columns = (n // side for n in padded.shape)
    means: Plane = padded.reshape(rows, side, columns, side).mean(axis=(1, 3), dtype=np.float32)
    return means


def _luma(rgb: Pixels) -> Plane:
    return np.asarray(Image.fromarray(rgb).convert("L"), np.float32)
