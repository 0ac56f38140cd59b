"""The context prior: symbols predicted from symbols decoded before, in exact integer arithmetic.

Channels are coded in groups, the most variable ones first, and the cells of a group in phases that
interleave (``layout.PHASES``). A small network predicts the symbols of a phase from all earlier
groups and from the earlier phases of its own group, through a 3x3 window (for coarse phases of the
own group, one that reaches further):

```
features of earlier groups ---3x3 shared--(+)--> clip --1x1--> clip --1x1--> mean, scale index
features of known own symbols ---3x3 own---^
```

The prediction picks one table of a grid (scale index x fraction of the mean); the symbol is coded
relative to the rounded mean with that table. Of the first group, the first phase knows nothing:
its channels have tables of their own, as in the factorized prior. With a level map (``levelmap``)
every cell has the tables, biases and gains of its own level. formats/bkc-1.md writes down every
shift and clip; ``exact`` explains why all machines agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bkcodec.errors import UnsupportedError
from bkcodec.prior.arrays import check_shapes, hidden_width
from bkcodec.prior.exact import (
    FEATURE_MAX,
    FRACTIONS,
    HIDDEN_MAX,
    Layer,
    Network,
    Weights,
    as_bytes,
    as_weights,
)
from bkcodec.prior.parts import SYMBOL_MAX
from bkcodec.prior.tables import Integers, Tables
from bkcodec.prior.walk import LevelPrior

EXCESS_BITS = 17  # a symbol beyond its table is at most 2^17 - 1 away from it
EXCESS_WEIGHT = 46340  # the largest in its table: an excess costs half a bit at least
MAX_SCALES = 4095  # indices of tables have 16 bits, and one is for symbols without any


class ContextPrior:
    """The context prior of a bundle.

    Args:
        arrays: the bundle's ``prior.*`` arrays without that prefix (see formats/bkc-1.md).
        first: tables [levels, channels of the first group], of that group's first phase.

    Raises:
        UnsupportedError: the arrays contradict each other, or a sum could leave 2^24.
    """

    def __init__(self, arrays: dict[str, Integers], first: Tables) -> None:
        self.arrays, self.first = arrays, first
        try:
            self.groups, self.phases = (arrays[k].tolist() for k in ("groups", "phases"))
            check_shapes(arrays, self.groups, self.phases, first)
            self.ends = np.cumsum(self.groups).tolist()
            self.starts = [0, *self.ends[:-1]]
            self.order = arrays["order"].astype(np.int64)
            self.coded = arrays["coded"] != 0
            self.gain, self.mean_gain = (arrays[k].astype(np.int64) for k in ("gain", "mean_gain"))
            self.magnitude = as_bytes(arrays["magnitude"].astype(np.int16))
            grid, excess = Tables.load(arrays, "rows"), Tables.load(arrays, "excess")
            self.rows = [row for i in range(grid.n_levels) for row in grid.level(i).channels]
            # After the last comes what stands for symbols that their cell's level does not code.
            self.low, self.high = (
                np.array([*(getattr(row, k) for row in self.rows), 0], np.int32)
                for k in ("low", "high")
            )
            self.last = self.high - self.low
            self.is_coded = self.last > 0
            limits = FRACTIONS * SYMBOL_MAX, grid.n_levels - 1, arrays["fine"][0]
            self.limits = np.array(limits, np.float32)  # see ``exact.predict``
            self.excess = excess.level(0).channels[0]
            self._check_values(grid)
            self.shared = [self._outgoing(g) for g in range(len(self.groups))]
            self.networks = {
                (g, p): self._network(g, p)
                for g, n in enumerate(self.phases)
                for p in range(n)
                if (g, p) != (0, 0)
            }
            self.hidden = hidden_width(arrays)
        except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise UnsupportedError(f"the bundle's context prior does not fit: {error}") from error

    @property
    def n_channels(self) -> int:
        """Channels of z."""
        return int(self.ends[-1])

    @property
    def n_levels(self) -> int:
        """Quality levels."""
        return int(self.coded.shape[0])

    def bundled(self) -> dict[str, Integers]:
        """All arrays of a bundle that say how its symbols are coded."""
        return {f"prior.{k}": v for k, v in self.arrays.items()} | self.first.bundled()

    def level(self, level: int) -> LevelPrior:
        """The prior at one quality level."""
        return LevelPrior(self, level)

    def at(self, levels: int | NDArray[np.uint8]) -> LevelPrior:
        """The prior at one quality level, or for cells of the levels [h, w]."""
        return LevelPrior(self, levels)

    def _check_values(self, grid: Tables) -> None:
        n = self.groups[0]
        if not (
            np.array_equal(np.sort(self.order), np.arange(self.n_channels))
            and self.arrays["magnitude"].max() <= FEATURE_MAX
            and not self.arrays["magnitude"][0]
            and (grid.n_channels, grid.n_levels <= MAX_SCALES) == (FRACTIONS, True)
            and (self.excess.low, self.excess.high) == (0, EXCESS_BITS)
            and self.excess.weights.max() <= EXCESS_WEIGHT
            and not self.low[~self.is_coded].any()
            and not (self.first.lengths[~self.coded[:, :n]] > 1).any()
            and not self.first.low[~self.coded[:, :n]].any()
        ):
            raise ValueError("values out of range")

    def _outgoing(self, source: int) -> Weights:
        """Weights from a group's features to the first layers of all later groups, side by side."""
        a, b = 2 * self.starts[source], 2 * self.ends[source]
        parts: list[Integers] = [np.zeros((9 * (b - a), 0), np.int8)]
        for g in range(source + 1, len(self.groups)):
            part = self.arrays[f"{g}.shared"].reshape(9, 2 * self.starts[g], -1)[:, a:b]
            parts.append(part.reshape(9 * (b - a), -1))
        return as_weights(np.concatenate(parts, axis=1).astype(np.int16))

    def _network(self, g: int, p: int) -> Network:
        shared = [self.arrays[f"{g}.shared"]] if g else []
        return Network(
            Layer.load(self.arrays, f"{g}.{p}.1", FEATURE_MAX, *shared).in_bytes(),
            Layer.load(self.arrays, f"{g}.{p}.2", HIDDEN_MAX),
            Layer.load(self.arrays, f"{g}.{p}.3", HIDDEN_MAX),
        )
