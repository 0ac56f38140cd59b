"""Choosing a quality level for a wanted size, from one z that was computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from bkcodec.config import LEVELS
from bkcodec.errors import TargetError


def largest_level(size_of: Callable[[int], int], limit: int) -> tuple[int, int]:
    """The highest quality level whose file is not above ``limit`` bytes.

    Sizes grow with the level, so a bisection finds it in 8 tries.

    Args:
        size_of: real file size in bytes at a level; called at most once a level.
        limit: bytes.

    Returns:
        (level, its size in bytes).

    Raises:
        TargetError: even the lowest level is larger; the message says how large.
    """
    size_at = cache(size_of)
    smallest = size_at(0)
    if smallest > limit:
        raise TargetError(f"no quality gives {limit} bytes; the smallest file has {smallest} bytes")
    low, high = 0, LEVELS  # size_at(low) fits, high does not (or does not exist)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size_at(middle) <= limit else (low, middle)
    return low, size_at(low)
