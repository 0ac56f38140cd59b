"""Figures of the docs, by the metrics of ``bkcodec bench``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bkcodec.bench.metrics import Metric


def judge(original: Image.Image, decoded: Image.Image, metrics: Sequence[Metric]) -> list[float]:
    """The value of each metric; all are defined for photos of this size."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "original.png"), Path(folder, "decoded.png")
        for path, picture in zip(paths, (original, decoded), strict=True):
            picture.convert("RGB").save(path, compress_level=1)
        return [float(metric.measure(*paths) or 0.0) for metric in metrics]


def sheet(rows: Sequence[Sequence[Image.Image]], scale: int = 2) -> Image.Image:
    """Pictures of one size in rows, each pixel shown as a square of so many."""
    width, height = (scale * side for side in rows[0][0].size)
    out = Image.new("RGB", (width * len(rows[0]), height * len(rows)))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            large = picture.resize((width, height), Image.Resampling.NEAREST)
            out.paste(large, (x * width, y * height))
    return out
