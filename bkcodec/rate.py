"""Choosing a quality level for a wanted size, from one z that was computed once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bkcodec.config import LEVELS
from bkcodec.errors import TargetError

OCTAVES = 0.03  # by which a file grows with a level, about: where to look first
PATIENCE = 6  # tries by interpolation; what is left then is bisected


def largest_level(
    size_of: Callable[[int], int], limit: int, deadline: float = math.inf
) -> tuple[int, int]:
    """The highest quality level whose file is not above ``limit`` bytes.

    Sizes grow with the level, their logarithm about evenly, so interpolation finds it in 4 or 5
    tries; 14 at most.

    Args:
        size_of: real file size in bytes at a level; called at most once a level.
        limit: bytes.
        deadline: on the monotonic clock; then the best level so far is taken, or the lowest.

    Returns:
        (level, its size in bytes).

    Raises:
        TargetError: even the lowest level is larger; the message says how large.
    """
    sizes: dict[int, int] = {}
    low, high = -1, LEVELS  # low fits (or is below all levels), high does not (or is above all)
    guess = LEVELS // 2
    while high - low > 1:
        size = sizes[guess] = size_of(guess)
        low, high = (guess, high) if size <= limit else (low, guess)
        slope = OCTAVES
        if low in sizes and high in sizes:
            slope = math.log2(sizes[high] / sizes[low]) / (high - low) or OCTAVES
        guess = guess + math.floor(math.log2(limit / size) / slope) if limit > 0 else 0
        if len(sizes) >= PATIENCE:
            guess = (low + high) // 2
        guess = min(max(guess, low + 1), high - 1)
        if time.monotonic() > deadline:
            if low >= 0 or high == 0:
                break
            guess, high = 0, 1
    if low < 0:
        raise TargetError(f"no quality gives {limit} bytes; the smallest file has {sizes[0]} bytes")
    return low, sizes[low]
