"""From cells to curves, tables and BD-rates."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bkcodec.bench.cells import Cell
from bkcodec.bench.codecs import Candidate
from bkcodec.bench.metrics import Metric, scaled

MIN_OVERLAP = 0.25  # of either curve's range of the metric; below, a BD-rate means nothing
MIN_POINTS = 4  # that Akima interpolation needs

Curve = list[tuple[float, float]]  # (bpp, value), by rising bpp
RateRange = tuple[float, float]  # in bpp


@dataclass(frozen=True, slots=True)
class Point:
    """Means of a codec over all pictures at one quality.

    Attributes:
        codec, quality: which.
        n_images: pictures without a failure, over which the means go.
        n_failed: pictures that failed.
        bugs: how often the decoder got what wrong.
        bpp: None for a ceiling.
        metrics: means, over the pictures where the metric is defined; None if it is nowhere.
        rates: mean bpp over just these pictures, by metric.
        encode_seconds, decode_seconds: medians over the pictures.
    """

    codec: str
    quality: float
    n_images: int
    n_failed: int
    bugs: dict[str, int]
    bpp: float | None
    ratio: float | None
    metrics: dict[str, float | None]
    rates: dict[str, float | None]
    encode_seconds: float | None
    decode_seconds: float | None


@dataclass(frozen=True, slots=True)
class BdRate:
    """How much more (+) or less (-) a codec needs than another for the same metric.

    Attributes:
        codec, anchor, metric: what is compared with what.
        percent: None where it cannot be said.
        low, high: range of the metric over which it holds, scaled as on axes.
        reason: why it cannot be said.
    """

    codec: str
    anchor: str
    metric: str
    percent: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def points(cells: Sequence[Cell], candidates: Sequence[Candidate]) -> list[Point]:
    """One point for each codec and quality, in order."""
    return [
        _point(
            codec.name, quality, [c for c in cells if (c.codec, c.quality) == (codec.name, quality)]
        )
        for codec in candidates
        for quality in codec.qualities
    ]


def _point(codec: str, quality: float, cells: list[Cell]) -> Point:
    good = [cell for cell in cells if not cell.failed]
    bugs: dict[str, int] = {}
    for cell in cells:
        for bug in cell.bugs:
            bugs[bug] = bugs.get(bug, 0) + 1
    names = dict.fromkeys(name for cell in good for name in cell.metrics)
    defined = {n: [c for c in good if c.metrics.get(n) is not None] for n in names}
    bpp = _mean([cell.bpp for cell in good])
    return Point(
        codec,
        quality,
        len(good),
        len(cells) - len(good),
        bugs,
        bpp,
        24 / bpp if bpp else None,
        {name: _mean([cell.metrics[name] for cell in some]) for name, some in defined.items()},
        {name: _mean([cell.bpp for cell in some]) for name, some in defined.items()},
        _median([cell.encode_seconds for cell in good]),
        _median([cell.decode_seconds for cell in good]),
    )


def bd_rates(
    measured: Sequence[Point],
    codecs: Sequence[str],
    metrics: Sequence[Metric],
    rates_within: RateRange | None = None,
) -> list[BdRate]:
    """BD-rates of every codec against every other for every metric, MS-SSIM in decibels.

    ``rates_within`` cuts the curves to a range of bpp first, as far as they reach.
    """
    rates = []
    for codec in codecs:
        for anchor in (name for name in codecs if name != codec):
            for metric in metrics:
                curves = [
                    [(rate, scaled(metric.name, v)) for rate, v in curve(measured, n, metric.name)]
                    for n in (anchor, codec)
                ]
                if rates_within is not None:
                    curves = [cut(points, *rates_within) for points in curves]
                if any(p.n_failed for p in measured if p.codec in (codec, anchor)):
                    reason = "not all pictures were coded at all qualities"
                    rates.append(BdRate(codec, anchor, metric.name, None, reason=reason))
                else:
                    rates.append(bd_rate(codec, anchor, metric, *curves))
    return rates


def curve(measured: Sequence[Point], codec: str, metric: str) -> Curve:
    """(bpp, value) of a codec, by rising bpp; both over the pictures that have the metric."""
    pairs = [(p.rates.get(metric), p.metrics.get(metric)) for p in measured if p.codec == codec]
    return sorted((r, value) for r, value in pairs if r is not None and value is not None)


def cut(points: Curve, low: float, high: float) -> Curve:
    """A curve between two rates; its ends lie on straight lines over the logarithm of the rate."""
    if not points:
        return []
    rates, values = (np.array(column) for column in zip(*points, strict=True))
    low, high = max(low, rates[0]), min(high, rates[-1])
    if low >= high:
        return []
    ends = zip((low, high), np.interp(np.log((low, high)), np.log(rates), values), strict=True)
    first, last = ((float(rate), float(value)) for rate, value in ends)
    return [first, *(point for point in points if low < point[0] < high), last]


def bd_rate(
    codec: str,
    anchor: str,
    metric: Metric,
    base: Curve,
    test: Curve,
) -> BdRate:
    """BD-rate (Akima, over the overlapping range of the metric) of ``test`` against ``base``."""
    import bjontegaard

    if min(len(base), len(test)) < MIN_POINTS:
        return BdRate(codec, anchor, metric.name, None, reason="fewer than 4 points on a curve")
    sign = 1 if metric.higher_is_better else -1
    a, b = (np.array(c, np.float64) * (1, sign) for c in (base, test))
    if any((np.diff(c[:, 1]) <= 0).any() for c in (a, b)):
        return BdRate(codec, anchor, metric.name, None, reason="a curve does not rise throughout")
    low, high = max(a[0, 1], b[0, 1]), min(a[-1, 1], b[-1, 1])
    share = min((high - low) / (c[-1, 1] - c[0, 1]) for c in (a, b))
    if share < MIN_OVERLAP:
        reason = f"the curves overlap over {max(0.0, share):.0%} only"
        return BdRate(codec, anchor, metric.name, None, reason=reason)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        percent = float(
            bjontegaard.bd_rate(
                a[:, 0],
                a[:, 1],
                b[:, 0],
                b[:, 1],
                method="akima",
                require_matching_points=False,
                min_overlap=0,
            )
        )
    low, high = sorted((sign * low, sign * high))
    return BdRate(codec, anchor, metric.name, percent, float(low), float(high))


def compressai_results(
    measured: Sequence[Point], codec: str, metrics: Sequence[Metric]
) -> dict[str, list[Any]]:
    """A codec's curve in CompressAI's schema: lists over qualities, one per figure."""
    own = [p for p in measured if p.codec == codec and p.bpp is not None]
    names = {"psnr": "psnr-rgb", "ms-ssim": "ms-ssim-rgb"}
    results: dict[str, list[Any]] = {"q": [p.quality for p in own], "bpp": [p.bpp for p in own]}
    for metric in metrics:
        if any(p.rates.get(metric.name) != p.bpp for p in own):
            continue  # some pictures are too small for it; the schema has one rate for all metrics
        key = names.get(metric.name, metric.name)
        results[key] = [p.metrics.get(metric.name) for p in own]
    results["encoding_time"] = [p.encode_seconds for p in own]
    results["decoding_time"] = [p.decode_seconds for p in own]
    return results


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return statistics.fmean(defined) if defined else None


def _median(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return statistics.median(defined) if defined else None
