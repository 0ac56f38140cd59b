"""Rate-distortion plots as SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bkcodec.bench.metrics import DECIBELS, Metric, scaled
from bkcodec.bench.report.published import Curve
from bkcodec.bench.report.style import built_in_style
from bkcodec.bench.report.summary import Point, curve
from bkcodec.files import printable, write_whole

# All at least 4.5:1 against white; marks differ too, for those who see colours otherwise.
COLOURS = ("#0065ad", "#c04a00", "#007d5a", "#a34a80", "#8a6a00", "#5a4fcf", "#555555")
ON_DARK = ("#6cb8f0", "#ff9a57", "#3ddc97", "#f09ccb", "#e8c14a", "#b3a8ff", "#c4c9ce")
MARKS = "os^Dv*P"
DPI = 120  # of PNG files
MEASURED = "measured"  # the source of curves that are not published ones
LABELS = {
    "psnr": "PSNR (RGB), dB",
    "psnr-y": "PSNR (luma), dB",
    "ms-ssim": f"MS-SSIM (RGB) as {DECIBELS}",
    "ssimulacra2": "SSIMULACRA2",
}


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

    MS-SSIM is drawn as -10 log10(1 - x), in dB. The rate axis is logarithmic. The same figures give
    the same files.
    """
    with built_in_style():
        for path in paths:
            is_svg = path.suffix.lower() == ".svg"
            write_whole(path, _drawn(curves, metric, title, is_svg), force=True)


def _drawn(curves: Sequence[Curve], metric: str, title: str, is_svg: bool) -> bytes:
    """The bytes of an SVG file, or of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure, out = Figure(figsize=(8, 5.5), dpi=DPI, layout="constrained"), io.BytesIO()
    _fill(figure.add_subplot(), curves, metric, title)
    canvas: Any = (FigureCanvasSVG if is_svg else FigureCanvasAgg)(figure)
    if is_svg:
        canvas.print_svg(out, metadata={"Date": None})
    else:
        canvas.print_png(out)
    return out.getvalue()


def _fill(axes: Any, curves: Sequence[Curve], metric: str, title: str) -> None:
    from matplotlib.ticker import ScalarFormatter

    for index, one in enumerate(c for c in curves if metric in c.metrics):
        style = MARKS[index % len(MARKS)] + ("-" if one.source == MEASURED else "--")
        axes.plot(
            one.bpp,
            [scaled(metric, value) for value in one.metrics[metric]],
            style,
            label=printable(one.name),
            markersize=4,
            color=COLOURS[index % len(COLOURS)],
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("bits per pixel (bytes on disk)")
    axes.set_ylabel(LABELS.get(metric, printable(metric)))
    axes.set_title(printable(title))
    axes.grid(True, which="both", alpha=0.25)
    for text in (axes.title, axes.yaxis.label, *axes.legend().get_texts()):
        text.set_parse_math(False)  # a dollar sign in a name is one
