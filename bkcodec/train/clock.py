"""The time of a run: all of it counts, from the command's beginning to the last file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

# What the run does, how much of that is done (0..1), and the seconds that are left of it.
Show = Callable[[str, float, float], None]

MARGIN = 1.2  # the last validation may take so much longer than the longest one before
REPORT_SECONDS = 30.0  # a line is logged at least so often


class Clock:
    """Says how long a run has taken, when its last validation has to begin, and what is left.

    Reading photos, fitting the prior, validating and writing files count like steps, and so does
    what earlier commands of the same run took.

    Args:
        show: is told how far the run is.

    Attributes:
        limit: seconds that the run may take.
        first_step: seconds after which its first step began; None before that.
        ending: seconds that its longest validation took, files included.
    """

    def __init__(self, show: Show | None = None) -> None:
        self.show = show or (lambda *_: None)
        self.limit, self.ending = math.inf, 0.0
        self.first_step: float | None = None
        self._began = self._reported = time.monotonic()
        self._n_steps, self._stepping = 0, 0.0  # of this command

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    @property
    def pace(self) -> float:
        """Seconds a step, over the steps of this command; infinite before the first."""
        return self._stepping / self._n_steps if self._n_steps else math.inf

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"elapsed": self.elapsed, "first_step": self.first_step, "ending": self.ending}

    def go_on(self, state: dict[str, Any]) -> None:
        """Add what the run took up to a checkpoint, which may be one from before this class."""
        self._began -= state["elapsed"]
        self.first_step, self.ending = state.get("first_step", 0.0), state.get("ending", 0.0)

    def progress(self, elapsed: float) -> float:
        """How much of the time for steps is used after so many seconds; from 1 on none is left."""
        first = self.first_step or 0.0
        one_more = self.pace if self._n_steps else 0.0
        room = self.limit - MARGIN * self.ending - one_more - first
        return (elapsed - first) / room if room > 0 else 1.0

    def stepped(self, seconds: float) -> None:
        """Count a step that took so long."""
        self._n_steps, self._stepping = self._n_steps + 1, self._stepping + seconds

    def left(self, elapsed: float, n_steps: float) -> float:
        """Seconds until the run ends, if it has at most so many steps to go."""
        by_steps = n_steps * self.pace if n_steps > 0 else 0.0
        return max(0.0, min(by_steps + self.ending, self.limit - elapsed))

    def is_silent(self) -> bool:
        """Whether no line was logged for a while."""
        return time.monotonic() - self._reported > REPORT_SECONDS

    def reported(self) -> None:
        """Note that a line was logged."""
        self._reported = time.monotonic()


def in_words(seconds: float) -> str:
    """A time as people say it: in seconds, minutes or hours."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
