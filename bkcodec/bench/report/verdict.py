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
    preferred = sorted(
        metrics, key=lambda m: FIRST.index(m.name) if m.name in FIRST else len(FIRST)
    )
    parts = []
    for metric in preferred:
        said = [r for r in own if r.metric == metric.name and r.percent is not None]
        if said and len(parts) < N_METRICS:
            parts.append(_part(metric, said))
    if not parts:
        return f"How {codec} compares cannot be said in BD-rates: {own[0].reason}."
    return f"{codec} needs {', and '.join(parts)}."


def _part(metric: Metric, rates: Sequence[BdRate]) -> str:
    """Against the strongest other codec, and how many of all are weaker than the tested one."""
    percents = {r.anchor: r.percent for r in rates if r.percent is not None}
    anchor = max(percents, key=percents.__getitem__)
    n_smaller, n = sum(p < 0 for p in percents.values()), len(percents)
    amount = f"{abs(percents[anchor]):.1f} % {'fewer' if percents[anchor] < 0 else 'more'} bytes"
    of = f"fewer than {n_smaller} of {n} others" if n > 1 else "the only other codec"
    return f"{amount} than {anchor} for the same {metric.label.split(',')[0]} ({of})"
