"""Curves from JSON files: CompressAI's schema, and our own results.json.

Such files come from anywhere, so nothing in them is taken on trust: a file is as long, and its
names and numbers are such, as a benchmark's can be, or it is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from bkcodec.errors import InputError, first_line
from bkcodec.files import printable

KEYS = {"psnr": ("psnr-rgb", "psnr"), "ms-ssim": ("ms-ssim-rgb", "ms-ssim")}
MAX_BYTES = 2**24  # of a file
MAX_CURVES, MAX_METRICS, MAX_POINTS = 100, 100, 1000
MAX_NAME = 100  # characters
RATES = (1e-6, 1e4)  # bits per pixel
LARGEST = 1e6  # value of a metric


@dataclass(frozen=True, slots=True)
class Curve:
    """A codec's rates and metrics.

    Attributes:
        name: of the codec; without control characters.
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
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        content = json.loads(data, parse_int=float, parse_constant=_refuse)
        entries = _instance(dict, content, "the file").get("codecs", [content])
        _instance(list, entries, "codecs", MAX_CURVES)
        curves = [_curve(_instance(dict, entry, "a codec"), path) for entry in entries]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise InputError(f"{path}: not results in CompressAI's schema (nested too deep)") from error
    except ValueError as error:
        reason = first_line(error)
        raise InputError(f"{path}: not results in CompressAI's schema ({reason})") from error
    return [curve for curve in curves if curve.bpp]  # of a codec that failed, none


def _curve(entry: dict[str, Any], path: Path) -> Curve:
    results = _instance(dict, entry.get("results", entry), "results")
    if "bpp" not in results:
        raise ValueError("there is no bpp")
    rates = _numbers(results["bpp"], "bpp")
    if rates is None or not all(RATES[0] <= rate <= RATES[1] for rate in rates):
        raise ValueError(f"rates must be numbers from {RATES[0]:g} to {RATES[1]:g}")
    order = sorted(range(len(rates)), key=rates.__getitem__)
    canonical = {alias: name for name, aliases in KEYS.items() for alias in aliases}
    metrics: dict[str, tuple[float, ...]] = {}
    for key, entries in results.items():
        if key in ("bpp", "q") or key.endswith("_time") or not isinstance(entries, list):
            continue
        values = _numbers(entries, _name(key))
        if len(entries) != len(rates):
            raise ValueError(f"{key} has {len(entries)} values for {len(rates)} rates")
        if values is not None:
            metrics.setdefault(canonical.get(key, key), tuple(values[i] for i in order))
    if len(metrics) > MAX_METRICS:
        raise ValueError(f"more than {MAX_METRICS} metrics")
    name = _name(entry.get("name", printable(path.stem)[:MAX_NAME]))
    source = printable(f"{path.absolute().parent.name}/{path.name}")
    return Curve(name, source, tuple(rates[i] for i in order), metrics)


def _instance(kind: type[Any], value: Any, name: str, longest: int | None = None) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {'an object' if kind is dict else 'a list'}")
    if longest is not None and len(value) > longest:
        raise ValueError(f"{name} has more than {longest} entries")
    return value


def _numbers(values: Any, name: str) -> list[float] | None:
    """Numbers of a reasonable size; None where one of them is null: not measured."""
    _instance(list, values, name, MAX_POINTS)
    for value in values:
        if value is not None and not (isinstance(value, float) and abs(value) <= LARGEST):
            raise ValueError(f"{name} has a value that is no number, or one above {LARGEST:g}")
    return None if None in values else list(values)


def _name(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"a name is not 1 to {MAX_NAME} printable characters")
    return name


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def distinct(runs: Sequence[Sequence[Curve]]) -> list[Curve]:
    """The curves of several files; where two have the same name, the file is said too."""
    every = [curve for curves in runs for curve in curves]
    count = Counter(curve.name for curve in every)
    return [replace(c, name=f"{c.name} ({c.source})") if count[c.name] > 1 else c for c in every]


def metric_names(curves: Sequence[Curve]) -> list[str]:
    """All metrics that some curve has, in order of appearance."""
    return list(dict.fromkeys(name for curve in curves for name in curve.metrics))
