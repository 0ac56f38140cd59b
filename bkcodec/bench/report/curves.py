"""Rate-distortion plots as SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bkcodec.bench.metrics import Metric
from bkcodec.bench.report.published import Curve
from bkcodec.bench.report.summary import Point, curve
from bkcodec.files import write_whole

# All at least 4.5:1 against white; marks differ too, for those who see colours otherwise.
COLOURS = ("#0065ad", "#c04a00", "#007d5a", "#a34a80", "#8a6a00", "#5a4fcf", "#555555")
ON_DARK = ("#6cb8f0", "#ff9a57", "#3ddc97", "#f09ccb", "#e8c14a", "#b3a8ff", "#c4c9ce")
MARKS = "os^Dv*P"
MEASURED = "measured"  # the source of curves that are not published ones
LABELS = {"psnr": "PSNR (RGB), dB", "psnr-y": "PSNR (luma), dB", "ms-ssim": "MS-SSIM (RGB), dB"}


def measured(
    measured_points: Sequence[Point], codecs: Sequence[str], metrics: Sequence[Metric]
) -> list[Curve]:
    """The measured curves, one per codec and metric."""
    curves = []
    for codec in codecs:
        for metric in metrics:
            pairs = curve(measured_points, codec, metric.name)
            if pairs:
                rates, values = zip(*pairs, strict=True)
                curves.append(Curve(codec, MEASURED, rates, {metric.name: values}))
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
        style = MARKS[index % len(MARKS)] + ("-" if one.source == MEASURED else "--")
        values = np.array(one.metrics[metric])
        if metric == "ms-ssim":
            values = -10 * np.log10(np.maximum(1e-6, 1 - values))
        axes.plot(
            one.bpp,
            values,
            style,
            label=one.name,
            markersize=4,
            color=COLOURS[index % len(COLOURS)],
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("bits per pixel (bytes on disk)")
    axes.set_ylabel(LABELS.get(metric, metric))
    axes.set_title(title)
    axes.grid(True, which="both", alpha=0.25)
    for text in (axes.title, *axes.legend().get_texts()):
        text.set_parse_math(False)  # a dollar sign in a name is one
    for path in paths:
        kind, out = path.suffix[1:].lower(), io.BytesIO()
        # Without a date, the same figures give the same file.
        figure.savefig(
            out, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None
        )
        write_whole(path, out.getvalue(), force=True)
