"""Curves from JSON files: CompressAI's schema, and our own results.json."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bkcodec.errors import InputError

KEYS = {"psnr": ("psnr-rgb", "psnr"), "ms-ssim": ("ms-ssim-rgb", "ms-ssim")}


@dataclass(frozen=True, slots=True)
class Curve:
    """A codec's rates and metrics.

    Attributes:
        name: of the codec.
        source: file it comes from, or "measured".
        bpp: rising.
        metrics: values by our name of the metric, as long as ``bpp``; MS-SSIM in 0..1.
    """

    name: str
    source: str
    bpp: tuple[float, ...]
    metrics: dict[str, tuple[float, ...]]


def read_curves(path: Path) -> list[Curve]:
    """All curves of a file.

    Raises:
        InputError: not a file of this kind.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        entries = content.get("codecs", [content])
        curves = [_curve(entry, path) for entry in entries]
        return [curve for curve in curves if curve.bpp]  # of a codec that failed, none
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not results in CompressAI's schema ({type(error).__name__}: {error})"
        ) from error


def _curve(entry: dict[str, Any], path: Path) -> Curve:
    results = entry.get("results", entry)
    rates = [float(v) for v in results["bpp"]]
    order = sorted(range(len(rates)), key=rates.__getitem__)
    if not all(0 < r < math.inf for r in rates):
        raise ValueError("rates must be above 0 and finite")
    canonical = {alias: name for name, aliases in KEYS.items() for alias in aliases}
    metrics: dict[str, tuple[float, ...]] = {}
    for key, values in results.items():
        if key in ("bpp", "q") or key.endswith("_time") or not isinstance(values, list):
            continue
        if len(values) != len(rates):
            raise ValueError(f"{key} has {len(values)} values for {len(rates)} rates")
        if all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
            metrics.setdefault(canonical.get(key, key), tuple(float(values[i]) for i in order))
    name, source = str(entry.get("name", path.stem)), f"{path.parent.name}/{path.name}"
    return Curve(name, source, tuple(rates[i] for i in order), metrics)


def distinct(runs: Sequence[Sequence[Curve]]) -> list[Curve]:
    """The curves of several files; where two have the same name, the file is said too."""
    every = [curve for curves in runs for curve in curves]
    count = Counter(curve.name for curve in every)
    return [replace(c, name=f"{c.name} ({c.source})") if count[c.name] > 1 else c for c in every]


def metric_names(curves: Sequence[Curve]) -> list[str]:
    """All metrics that some curve has, in order of appearance."""
    return list(dict.fromkeys(name for curve in curves for name in curve.metrics))
