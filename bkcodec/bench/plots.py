"""Rate-distortion plots as SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bkcodec.bench.metrics import Metric
from bkcodec.bench.published import Curve
from bkcodec.bench.summary import Point, curve
from bkcodec.files import write_whole

# Distinguishable with the common kinds of colour blindness (Okabe and Ito), bundles first.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
LABELS = {"psnr": "PSNR (RGB), dB", "psnr-y": "PSNR (luma), dB", "ms-ssim": "MS-SSIM (RGB), dB"}


def measured(
    found: Sequence[Point], codecs: Sequence[str], metrics: Sequence[Metric]
) -> list[Curve]:
    """The measured curves, one a codec."""
    curves = []
    for codec in codecs:
        by_metric = {m.name: curve(found, codec, m.name) for m in metrics}
        rates = sorted({bpp for pairs in by_metric.values() for bpp, _ in pairs})
        whole = {name: tuple(v for _, v in pairs) for name, pairs in by_metric.items()
                 if pairs and len(pairs) == len(rates)}  # fmt: skip
        if rates:
            curves.append(Curve(codec, "measured", tuple(rates), whole))
    return curves


def plot(curves: Sequence[Curve], metric: str, title: str, paths: Sequence[Path]) -> None:
    """Draw all curves that have the metric into files, .svg or .png.

    MS-SSIM is drawn as -10 log10(1 - x). The rate axis is logarithmic.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    for index, one in enumerate(c for c in curves if metric in c.metrics):
        style = "o-" if one.source == "measured" else "s--"
        values = np.array(one.metrics[metric])
        if metric == "ms-ssim":
            values = -10 * np.log10(np.maximum(1e-6, 1 - values))
        axes.plot(one.bpp, values, style, label=one.name, markersize=4,
                  color=COLOURS[index % len(COLOURS)])  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("bits a pixel (bytes on disk)")
    axes.set_ylabel(LABELS.get(metric, metric))
    axes.set_title(title)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend()
    for path in paths:
        kind, out = path.suffix[1:].lower(), io.BytesIO()
        # Without a date, the same figures give the same file.
        figure.savefig(
            out, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None
        )
        write_whole(path, out.getvalue(), force=True)
