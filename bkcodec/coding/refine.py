"""The encoder's search for the timestep and the seed with which a decoder comes closest to y."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 1.9)  # of the timestep that the position says
SEEDS, SEED_STEPS = 8, 4  # seeds are compared in a chain of so many steps
WORTH = 0.002  # relative gain below which a timestep or a seed is not sent


class Way(NamedTuple):
    """One that a decoder could go; ``timestep`` None = what the level says."""

    steps: int = 1
    seed: int = 0
    timestep: int | None = None


def refine(
    error: Callable[[Way], float], start: int, last: int, effort: int, deadline: float
) -> tuple[int | None, int]:
    """Choose what the file tells the decoder's U-Net.

    Args:
        error: how far from y a decoder ends that goes a way.
        start: timestep that the level says.
        last: the largest timestep that any decoder accepts.
        effort: 1 searches the timestep of a single step, 2 also the seed of several steps.
        deadline: on the monotonic clock; the best that was found by then is taken.

    Returns:
        Timestep (None = the bundle's) and seed (0 = none sent).
    """

    def best(ways: Iterable[Way]) -> Way:
        errors: dict[Way, float] = {}
        for way in ways:
            weight = 1.0 if errors else 1 - WORTH  # the first must be beaten by that much
            errors[way] = weight * error(way)
            if time.monotonic() > deadline:
                break
        return min(errors, key=errors.__getitem__)

    others = {min(round(start * f), last) for f in FACTORS} - {start}
    timestep = best([Way(), *(Way(timestep=t) for t in sorted(others))]).timestep
    if effort < 2:
        return timestep, 0
    return timestep, best([Way(SEED_STEPS, seed, timestep) for seed in range(SEEDS)]).seed
