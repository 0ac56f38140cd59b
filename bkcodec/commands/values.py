"""Kinds of command-line values that click does not have; each parses or raises BadParameter."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from bkcodec.options import METADATA, STRIPPED, quality_to_level

SIZE_UNITS = {"": 1, "k": 1000, "ki": 1024, "m": 1_000_000, "mi": 1024**2}
MIN_TILE = 256  # pixels; what overlaps grows: tiles of 64 took up to 91 times as long
MAX_PAIR = 64


class Number(click.FloatRange):
    """A range of numbers, in which neither infinity nor what is no number is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


def byte_size(text: str) -> int:
    """A number of bytes, with k (1000), M (1000000), Ki (1024) or Mi, and a B, if wanted."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(ki?|mi?)?b?", text.strip(), re.IGNORECASE)
    if match is None or not math.isfinite(float(match[1])):
        raise click.BadParameter(f"{text!r} is not a size such as 4000, 12k, 5KiB or 1.5M")
    return int(float(match[1]) * SIZE_UNITS[(match[2] or "").lower()])


def tile(text: str) -> int | None:
    """``auto``, ``off`` or a number of pixels, given on as None, 0 or the number."""
    if text in ("auto", "off"):
        return None if text == "auto" else 0
    if text.isdecimal() and int(text) >= MIN_TILE:
        return int(text)
    raise click.BadParameter(f"{text!r} is neither auto, off nor a number of pixels >= {MIN_TILE}")


def strip(text: str) -> frozenset[str]:
    """A comma-separated choice of metadata; ``all`` is every kind."""
    words = frozenset(word.strip() for word in text.split(",")) - {""}
    if words - set(STRIPPED) - {"all"}:
        raise click.BadParameter(f"{text!r} is not a list of {', '.join(STRIPPED)} or all")
    return frozenset(METADATA) if "all" in words else words


def names(text: str) -> list[str]:
    """A comma-separated list of names, each once."""
    entries = [word.strip() for word in text.split(",") if word.strip()]
    if not entries or len(set(entries)) < len(entries):
        raise click.BadParameter(f"{text!r} is not a list of different names")
    return entries


def qualities(text: str) -> list[float]:
    """A comma-separated list of different qualities in 0..100, given on in rising order."""
    try:
        entries = sorted(float(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of numbers") from error
    levels = {quality_to_level(q) for q in entries if 0 <= q <= 100}
    if len(levels) < len(entries):
        raise click.BadParameter(
            f"{text!r} is not a list of qualities in 0..100, half a step apart at least"
        )
    return entries


def positive_range(text: str) -> tuple[float, float]:
    """One number above 0, or two, LOW:HIGH; given on as two."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither a number nor LOW:HIGH") from error
    low, high = numbers[0], numbers[-1]
    if len(numbers) > 2 or not 0 < low <= high < float("inf"):
        raise click.BadParameter(f"{text!r}: 0 < LOW <= HIGH is needed")
    return low, high


def pair(text: str) -> tuple[int, int]:
    """Two whole numbers of 1..64, as in 3,4."""
    match = re.fullmatch(r"(\d{1,2}),(\d{1,2})", text)
    if match is None or not all(1 <= int(number) <= MAX_PAIR for number in match.groups()):
        raise click.BadParameter(f"{text!r} is not a pair such as 3,4 (each 1..{MAX_PAIR})")
    return int(match[1]), int(match[2])


def weighted_folder(text: str) -> tuple[Path, float]:
    """A folder, DIR or DIR=WEIGHT with a weight above 0."""
    folder, sign, weight = text.rpartition("=")
    if not sign:
        return Path(text), 1.0
    try:
        value = float(weight)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {weight!r} is not a weight") from error
    if not 0 < value < float("inf"):
        raise click.BadParameter(f"{text!r}: a weight must be above 0")
    return Path(folder), value
