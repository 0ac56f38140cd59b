"""The walk of the context prior over z: its parts, in the order in which they are coded.

``context`` says what a prior is; here its symbols become strings, and strings symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.machine import n_threads
from bkcodec.prior import exact
from bkcodec.prior.arrays import PHASES, phase_map
from bkcodec.prior.exact import (
    BAND,
    FEATURE_MAX,
    ZERO,
    CellLevels,
    Features,
    Feed,
    Floats,
    Numbers,
    Whole,
    bands,
    windows,
)
from bkcodec.prior.parts import FirstPart, Part, PredictedPart
from bkcodec.prior.tables import RangeDecoder, RangeEncoder, Symbols

if TYPE_CHECKING:
    from bkcodec.prior.context import ContextPrior

GAIN_SHIFT = 12
MANY = 8192  # cells from which on threads are worth their trouble
Each = Callable[[Callable[[Any], None], Iterable[Any]], Iterable[None]]


@dataclass(frozen=True, slots=True, eq=False)
class LevelPrior:
    """The context prior at one quality level, or at one for each cell: a ``SymbolCoder``."""

    prior: ContextPrior
    levels: int | NDArray[np.uint8]  # [h, w]

    def encode(self, symbols: NDArray[Any]) -> tuple[bytes, Symbols]:
        """See ``SymbolCoder``. Where the prior is sure enough, a symbol is not coded."""
        encoder, walk = RangeEncoder(), self.walk(*symbols.shape[1:])
        rows = walk.rows_of(symbols)
        for part in walk:
            part.write(encoder, rows)
        return encoder.to_bytes(), walk.symbols

    def likelihoods(self, symbols: NDArray[Any]) -> tuple[Symbols, NDArray[np.float32]]:
        """See ``SymbolCoder``."""
        walk = self.walk(*symbols.shape[1:])
        rows = walk.rows_of(symbols)
        likelihoods = np.ones(rows.shape, np.float32)
        for part in walk:
            part.enter(part.weigh(rows), likelihoods)
        return walk.symbols, walk.map_of(likelihoods)

    def decode(self, data: bytes, height: int, width: int) -> Symbols:
        """See ``SymbolCoder``."""
        decoder, walk = RangeDecoder(data), self.walk(height, width)
        for part in walk:
            part.read(decoder)
        decoder.finish()
        return walk.symbols

    def walk(self, height: int, width: int) -> Walk:
        """All parts of z of so many cells; each needs its values before the next one comes."""
        return Walk(self.prior, self.levels, height, width)


class Walk:
    """Goes over all parts in coding order; what has been seen predicts what comes.

    What belongs to cells lies in rows, [cells, C], of channels in coding order.
    """

    def __init__(
        self, prior: ContextPrior, levels: int | NDArray[np.uint8], height: int, width: int
    ) -> None:
        self.prior, self.levels, self.shape = prior, levels, (height, width)
        self._rows: Symbols = np.zeros((height * width, prior.n_channels), np.int16)

    @property
    def symbols(self) -> Symbols:
        """Int16 [C, h, w], of the parts that were visited."""
        return self.map_of(self._rows)

    def rows_of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values [C, h, w] in rows."""
        return np.ascontiguousarray(values.reshape(len(values), -1)[self.prior.order].T)

    def map_of(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The inverse of ``rows_of``."""
        values = np.empty(rows.shape[::-1], rows.dtype)
        values[self.prior.order] = rows.T
        return values.reshape(-1, *self.shape)

    def __iter__(self) -> Iterator[Part]:
        threads = n_threads() if len(self._rows) >= MANY else 1
        with ThreadPoolExecutor(threads) as pool:
            yield from self._parts(pool.map if threads > 1 else map)

    def _parts(self, each: Each) -> Iterator[Part]:
        prior, n = self.prior, len(self._rows)
        coded = prior.coded[np.unique(self.levels)].any(axis=0)
        n_groups = len(prior.ends)
        while n_groups and not coded[prior.starts[n_groups - 1] :].any():
            n_groups -= 1
        totals = [np.zeros((n, prior.hidden), np.float32) for _ in range(n_groups)]
        for g in range(n_groups):
            group = _Group(prior, g, np.flatnonzero(coded), self.shape, each)
            total = totals.pop(0)
            phase_of = phase_map(len(group.phases), *self.shape).ravel()
            for p in range(len(group.phases)):
                where = np.flatnonzero(phase_of == p)
                levels = self.levels if isinstance(self.levels, int) else self.levels.flat[where]
                part: Part
                if (g, p) == (0, 0):
                    part = FirstPart(prior.first.at(levels), group.channels, where)
                else:
                    part = group.predicted(p, where, levels, total)
                yield part
                part.enter(part.values, self._rows)
                if (g, p) != (n_groups - 1, len(group.phases) - 1):
                    group.add_features(part.values, where, levels)
            group.spread(totals)


class _Group:
    """A group of channels: what is known of them, and what that says.

    Args:
        prior: the bundle's.
        g: which of its groups.
        coded: positions of all channels that are coded.
        shape: rows and columns of cells.
        each: as ``map``.

    Attributes:
        channels: the group's positions; of the first group, whose first phase has tables for all
            channels, all.
        phases: in which its cells are coded.
    """

    def __init__(
        self, prior: ContextPrior, g: int, coded: Whole, shape: tuple[int, int], each: Each
    ) -> None:
        self.prior, self.g, self.shape, self._each = prior, g, shape, each
        self.begin, self.end = prior.starts[g], prior.ends[g]
        inside = coded[(coded >= self.begin) & (coded < self.end)]
        self.channels = inside if g else np.arange(self.begin, self.end)
        self.phases = PHASES[prior.phases[g]]
        self.border = max(phase.reach for phase in self.phases)
        height, width = (n + 2 * self.border for n in shape)
        depth = 2 * (self.end - self.begin)
        self._features: Features = np.full((height, width, depth), ZERO, np.uint8)

    def predicted(self, p: int, where: Whole, levels: CellLevels, total: Floats) -> PredictedPart:
        """The part of a phase: its cells, their levels, and sums from earlier groups [cells, ]."""
        prior, engine, width = self.prior, _engine(), self.shape[1]
        network, reach = prior.networks[self.g, p], self.phases[p].reach
        near = windows(self._without_border(reach), reach)
        feed = network.feed(levels, self.channels - self.begin)
        feed |= {
            "gain": _at(prior.mean_gain, levels, self.channels) * 2.0**-GAIN_SHIFT,
            "limits": prior.limits,
        }
        mean = np.empty((len(where), len(self.channels)), np.int32)
        tables = np.empty(mean.shape, np.uint16)  # 16 bits are sorted fastest

        def work(band: slice) -> None:
            places = where[band]
            seen = near[np.divmod(places, width)] if p else np.full(len(places), ZERO, np.uint8)
            some = {"windows": seen.reshape(len(places), -1), "total": total[places]}
            some |= _cut(feed, band)
            mean[band], tables[band] = engine.predict(some)

        self._all(work, bands(len(where)))
        if not isinstance(levels, int):
            uncoded = ~_at(prior.coded, levels, self.channels)
            mean[uncoded], tables[uncoded] = 0, len(prior.rows)
        return PredictedPart(prior, self.channels, where, mean, tables)

    def add_features(self, values: Numbers, where: Whole, levels: CellLevels) -> None:
        """Enter symbols [cells, channels] of a phase."""
        prior, position = self.prior, 2 * (self.channels - self.begin)
        gain = _at(prior.gain, levels, self.channels) * 2.0**-GAIN_SHIFT
        inner = self._without_border(0)

        def work(band: slice) -> None:
            part = values[band]
            rows = np.full((len(part), inner.shape[2]), ZERO, np.uint8)
            scaled = np.floor(part * (gain if len(gain) == 1 else gain[band]) + 0.5)
            rows[:, position] = scaled.clip(-FEATURE_MAX, FEATURE_MAX) + ZERO
            rows[:, position + 1] = prior.magnitude[np.abs(part).clip(max=255)]
            inner[np.divmod(where[band], self.shape[1])] = rows

        self._all(work, bands(len(where)))

    def spread(self, totals: list[Floats]) -> None:
        """Add what the group says to the sums of later groups [cells, hidden]."""
        if not totals:
            return
        (height, width), hidden, engine = self.shape, self.prior.hidden, _engine()
        weight = self.prior.shared[self.g][:, : hidden * len(totals)]
        near = windows(self._without_border(1))
        rows = max(1, BAND // width)

        def work(first: int) -> None:
            seen = near[first : first + rows]
            band = slice(width * first, width * (first + len(seen)))
            sums = engine.spread(seen.reshape(band.stop - band.start, -1), weight)
            for i, total in enumerate(totals):
                total[band] += sums[:, hidden * i : hidden * (i + 1)]

        self._all(work, range(0, height, rows))

    def _all(self, work: Callable[[Any], None], bands: Iterable[Any]) -> None:
        for _ in self._each(work, bands):
            pass

    def _without_border(self, but: int) -> Features:
        """Features with a border of ``but`` cells only."""
        by = self.border - but
        height, width = self._features.shape[:2]
        return self._features[by : height - by, by : width - by]


@cache
def _engine() -> ModuleType:
    """What computes: ONNX Runtime, or where it is missing NumPy."""
    try:
        from bkcodec.prior import graph
    except ImportError:
        return exact
    return graph


def _cut(feed: Feed, band: slice) -> Feed:
    """The rows of a band of what has a row for each cell."""
    cellwise = (k for k, v in feed.items() if k.endswith((".bias", "gain")) and len(v) > 1)
    return feed | {k: feed[k][band] for k in cellwise}


def _at(rows: NDArray[Any], levels: CellLevels, channels: Whole) -> NDArray[Any]:
    """Rows [levels, C] at a level, [1, channels], or at those of cells, [n, channels]."""
    picked: NDArray[Any] = rows[np.atleast_1d(levels)][:, channels]
    return picked
