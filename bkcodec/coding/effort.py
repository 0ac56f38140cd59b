"""What an encoder does with more time: better symbols, checked with the decoder itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bkcodec.metrics import ms_ssim, psnr
from bkcodec.options import MAX_LEVEL
from bkcodec.prior.levelmap import Levels
from bkcodec.prior.tables import Symbols

if TYPE_CHECKING:
    from bkcodec.coding.latent import Goal, LatentSearch

NEIGHBOURS = 12  # levels: so far away are those that say what a bit is worth
WORTH = (
    0.65  # of what a bit is worth between plain files: searched ones are then as good, and smaller
)
TRIES = 3  # searches for a file of one size
GROWTH = 0.03  # octaves by which a file grows with a level, about
SQUARE = 512  # pixels
SHRINKAGE = 0.05  # what a search takes off a file, about
DOWN, UP = 3, 2  # levels to the next try at a value of a metric

Pixels = NDArray[np.uint8]
# Is told the share of a search that is done, 0..1, and of longer ones the share of the bytes that
# they have saved so far, at the same quality, or None.
Tell = Callable[[float, float | None], None]
Coded = TypeVar("Coded")


@dataclass(frozen=True, slots=True)
class Photo(Generic[Coded]):
    """A photo on its way to a file, and what its codec can do with it.

    Attributes:
        rgb: uint8 [H, W, 3].
        levels: those of all cells, for a base level.
        start: symbols [M, h, w] before they are rounded, for a base level.
        code: symbols and a base level -> a file.
        size: bytes of a file.
        show: what a decoder makes of a file of a base level, uint8 [H, W, 3].
    """

    rgb: Pixels
    levels: Callable[[int], int | Levels]
    start: Callable[[int], NDArray[np.float32]]
    code: Callable[[Symbols, int], Coded]
    size: Callable[[Coded], int]
    show: Callable[[Coded, int], Pixels]


@dataclass(slots=True)
class Effort(Generic[Coded]):
    """A search for better symbols of one photo.

    Attributes:
        search: the networks.
        photo: the photo.
        goal: what counts; its slope is found.
        effort: 1..9.
        deadline: on the monotonic clock.
        tell: see ``Tell``.
    """

    search: LatentSearch
    photo: Photo[Coded]
    goal: Goal
    effort: int
    deadline: float = math.inf
    tell: Tell = lambda share, saved: None

    def at_quality(self, plain: Coded, level: int) -> Coded:
        """A file with the level of a plain one, or that one where none is better."""
        goal = self._goal(level)
        better = self._searched(level, goal)
        return min((plain, better), key=lambda file: self._cost(file, level, goal))

    def at_size(self, plain: Coded, level: int, limit: int) -> Coded:
        """The best file of at most so many bytes; ``plain`` is the best without a search."""
        goal = self._goal(level)
        room = math.log2(limit / self.photo.size(plain) / (1 - SHRINKAGE))
        guess = min(MAX_LEVEL, level + max(0, math.floor(room / GROWTH)))
        for _ in range(TRIES):
            if time.monotonic() > self.deadline:
                break
            found = self._searched(guess, goal)
            size = self.photo.size(found)
            if size <= limit:
                pairs = ((plain, level), (found, guess))
                return min(pairs, key=lambda pair: self._distortion(pair[0], pair[1], goal))[0]
            guess -= max(1, math.ceil(math.log2(size / limit) / GROWTH))
            if guess < 0:
                break
        return plain

    def at_value(
        self,
        plain: tuple[Coded, float],
        level: int,
        value: float,
        measure: Callable[[Coded], float],
    ) -> tuple[Coded, float]:
        """The smallest file that reaches a value of a metric, and what it reaches.

        Args:
            plain: the best file without a search, and what it reaches.
            level: of it.
            value: to be reached.
            measure: what a file reaches.
        """
        goal, best, guess = self._goal(level), plain, level
        for _ in range(TRIES):
            if time.monotonic() > self.deadline:
                break
            found = self._searched(guess, goal)
            reached = measure(found)
            if reached >= value and self.photo.size(found) < self.photo.size(best[0]):
                best = found, reached
            elif best is not plain:
                break  # a level further up was the last that reached it
            guess += -DOWN if reached >= value else UP
            if not 0 <= guess <= MAX_LEVEL:
                break
        return best

    def _searched(self, level: int, goal: Goal) -> Coded:
        symbols = self.search.search(
            self.photo.start(level),
            self.photo.rgb,
            self.photo.levels(level),
            goal,
            self.effort,
            self.deadline,
            self.tell,
        )
        return self.photo.code(symbols, level)

    def _goal(self, level: int) -> Goal:
        """What counts, and what a bit is worth: from plain files of lower and of higher quality."""
        points = []
        for offset in (-NEIGHBOURS, NEIGHBOURS):
            near = min(max(level + offset, 0), MAX_LEVEL)
            file = self.photo.code(np.rint(self.photo.start(near)).astype(np.int16), near)
            points.append((self._rate(file), self._distortion(file, near, self.goal)))
        (low, worse), (high, better) = points
        slope = (high - low) / (worse - better) if worse > better else 0.0
        return replace(self.goal, slope=WORTH * max(0.0, slope))

    def _rate(self, file: Coded) -> float:
        """Bits per pixel."""
        return 8 * self.photo.size(file) / (self.photo.rgb.shape[0] * self.photo.rgb.shape[1])

    def _cost(self, file: Coded, level: int, goal: Goal) -> float:
        return self._rate(file) + goal.slope * self._distortion(file, level, goal)

    def _distortion(self, file: Coded, level: int, goal: Goal) -> float:
        """As ``Goal.distortion``, of what a decoder shows."""
        from bkcodec.train.objectives.shared import MS_SSIM_TO_MSE

        photo, shown = self.photo.rgb, self.photo.show(file, level)
        error = 255**2 * 10 ** (-psnr(photo, shown) / 10)
        similarity = _in_squares(ms_ssim, photo, shown) if goal.similarity else None
        if similarity is not None:
            share = goal.similarity
            error = (1 - share) * error + share * MS_SSIM_TO_MSE * (1 - similarity)
        if goal.lpips is not None:
            error += _in_squares(goal.perceived_of, photo, shown) or 0.0
        return error


def _in_squares(
    measure: Callable[[Pixels, Pixels], float | None], one: Pixels, other: Pixels
) -> float | None:
    """A measure; of a large picture in nine squares: all of it takes long, and much memory.

    Args:
        measure: what it is, or None where a picture is too small.
        one: uint8 [H, W, 3].
        other: the same.
    """
    height, width = one.shape[:2]
    if min(height, width) <= 3 * SQUARE:
        return measure(one, other)
    tops, lefts = ([0, (side - SQUARE) // 2, side - SQUARE] for side in (height, width))
    squares = [np.s_[y : y + SQUARE, x : x + SQUARE] for y in tops for x in lefts]
    values = [measure(one[square], other[square]) for square in squares]
    return float(np.mean([value for value in values if value is not None]))
