"""Choosing a quality level for a wanted size or metric, from one z that was computed once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sized
from typing import TypeVar

import numpy as np

from bkcodec.coding import targets
from bkcodec.coding.targets import Target
from bkcodec.errors import TargetError
from bkcodec.options import LEVELS, MAX_LEVEL, level_to_quality

OCTAVES = 0.03  # by which a file grows with a level, about: where to look first
PATIENCE = 6  # tries by interpolation; what is left then is bisected
PROBES = 6  # of a metric, at most: each is decoded and measured

Coded = TypeVar("Coded", bound=Sized)


def largest(
    code: Callable[[int], Coded],
    limit: int,
    deadline: float = math.inf,
    reserve: int = 0,
    extras: Mapping[str, int] | None = None,
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
        extras: bytes by name of what is in the file beside the picture.

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
        text = f"no quality gives {limit} bytes; the smallest file has {sizes[0]} bytes"
        if extras:
            parts = ", ".join(f"{name} {n:,} bytes" for name, n in extras.items())
            text += f", of which {parts}; --strip and --alpha drop leave these out"
        raise TargetError(text)
    return best


def smallest(
    probe: Callable[[int], tuple[Coded, float]], target: Target, deadline: float = math.inf
) -> tuple[Coded, float]:
    """The file of the lowest quality level that reaches a metric's value, and what it reaches.

    Six probes at most. The first is where the metric's curve says; what a probe says moves the
    curve, and between a level that fails and one that reaches, the curve is bent to meet both.

    Args:
        probe: makes the file of a level and measures its picture; called at most once for each
            level.
        target: what to reach.
        deadline: on the monotonic clock; then the lowest level that reached it is taken, or the
            highest level.

    Raises:
        TargetError: not even the highest level reaches it; the message says how far it comes.
    """
    values: dict[int, float] = {}
    best: tuple[Coded, float] | None = None  # the file of level ``high``
    low, high = -1, LEVELS  # low fails (or is below all levels), high reaches (or is above all)
    guess = _level(target.value, target.metric.curve)
    while True:
        coded, value = probe(guess)
        values[guess] = value
        if value >= target.value:
            high, best = guess, (coded, value)
        else:
            low = guess
        del coded  # large for huge pictures
        is_late = time.monotonic() > deadline
        if high - low <= 1 or (best is not None and (is_late or len(values) == PROBES)):
            break
        last = best is None and (is_late or len(values) == PROBES - 1)
        guess = MAX_LEVEL if last else _next_level(values, low, high, target)
    if best is None:
        metric, (level, value) = target.metric, max(values.items(), key=lambda item: item[1])
        raise TargetError(
            f"no quality reaches {metric.shown(target.value)}; the best is "
            f"{metric.shown(value)}, at quality {level_to_quality(level):g}"
        )
    return best


def _next_level(values: Mapping[int, float], low: int, high: int, target: Target) -> int:
    """The lowest level that can be expected to reach the target, strictly between two levels."""
    curve, aim = target.metric.curve, target.value
    if low in values and high in values:
        ends = [_value(level, curve) for level in (low, high)]
        share = (aim - values[low]) / (values[high] - values[low])
        level = _level(ends[0] + share * (ends[1] - ends[0]), curve)
    elif high in values:
        level = _level(_value(high, curve) + aim - values[high], curve)
    else:  # the more have failed, the larger a step
        level = _level(_value(low, curve) + aim - values[low], curve) + 2 ** len(values) - 1
    return min(max(level, low + 1), high - 1)


def _value(level: int, curve: tuple[float, ...]) -> float:
    return float(np.interp(level, targets.LEVELS, curve))


def _level(value: float, curve: tuple[float, ...]) -> int:
    """The lowest level at which a curve reaches a value; the highest where none does."""
    return math.ceil(float(np.interp(value, curve, targets.LEVELS)))
