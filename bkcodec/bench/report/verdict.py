"""What a benchmark says, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from bkcodec.bench.metrics import Metric
from bkcodec.bench.report.summary import BdRate

N_METRICS = 2  # that the sentence speaks of, at most
FIRST = ("ms-ssim", "psnr")  # of the metrics, those it prefers


def verdict(codec: str, metrics: Sequence[Metric], rates: Sequence[BdRate]) -> str:
    """How a codec stands among the others, by BD-rate.

    Args:
        codec: the one that was tested.
        metrics: all that were measured.
        rates: of codecs against others; those of ``codec`` count.
    """
    own = [r for r in rates if r.codec == codec]
    if not own:
        return f"{codec} stands alone: nothing was compared with it."
    order = {name: place for place, name in enumerate(FIRST)}
    parts: list[str] = []
    for metric in sorted(metrics, key=lambda m: order.get(m.name, len(FIRST))):
        percents = {r.anchor: r.percent for r in own if r.metric == metric.name}
        figures = {anchor: p for anchor, p in percents.items() if p is not None}
        if figures and len(parts) < N_METRICS:
            subject = "they" if parts else f"the files of {codec}"
            label = metric.label.partition(",")[0]  # without its unit
            parts.append(f"at equal {label} {subject} are {_standing(figures)}")
    if not parts:
        return f"How {codec} compares cannot be said in BD-rates: {own[0].reason}."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _standing(percents: dict[str, float]) -> str:
    """Against the strongest other codec, and against how many more if that one is stronger still.

    Args:
        percents: BD-rates by anchor, at least one.
    """
    anchor, percent = max(percents.items(), key=lambda item: item[1])
    n_others, n_larger = len(percents), sum(p < 0 for p in percents.values())
    if percent < 0:
        rank = f", the strongest of {n_others} others" if n_others > 1 else ""
        return f"{-percent:.1f}\N{NO-BREAK SPACE}% smaller than those of {anchor}{rank}"
    rest = f", and smaller than those of {n_larger} of {n_others} others" if n_larger else ""
    return f"{percent:.1f}\N{NO-BREAK SPACE}% larger than those of {anchor}{rest}"
