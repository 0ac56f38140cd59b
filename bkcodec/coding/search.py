"""Choosing a quality level for a wanted size, from one z that was computed once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sized
from typing import TypeVar

from bkcodec.errors import TargetError
from bkcodec.options import LEVELS

OCTAVES = 0.03  # by which a file grows with a level, about: where to look first
PATIENCE = 6  # tries by interpolation; what is left then is bisected

Coded = TypeVar("Coded", bound=Sized)


def largest(
    code: Callable[[int], Coded], limit: int, deadline: float = math.inf, reserve: int = 0
) -> Coded:
    """The file of the highest quality level that is not above ``limit`` bytes.

    Sizes grow with the level, their logarithm about evenly, so interpolation finds it in 4 or 5
    tries; 14 at most.

    Args:
        code: makes the file of a level, whose length is its size in bytes; called at most once for
            each level.
        limit: bytes.
        deadline: on the monotonic clock; then the best level so far is taken, or the lowest.
        reserve: bytes that the file will grow by afterwards.

    Raises:
        TargetError: even the lowest level is larger; the message says how large.
    """
    best: Coded | None = None  # the file of level ``low``
    sizes: dict[int, int] = {}
    low, high = -1, LEVELS  # low fits (or is below all levels), high does not (or is above all)
    guess = LEVELS // 2
    while high - low > 1:
        coded = code(guess)
        size = sizes[guess] = len(coded) + reserve
        if size <= limit:
            low, best = guess, coded
        else:
            high = guess
        del coded  # large for huge pictures
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
    if best is None:
        raise TargetError(f"no quality gives {limit} bytes; the smallest file has {sizes[0]} bytes")
    return best
