"""Kinds of command-line values that click does not have."""

from __future__ import annotations

import re
from typing import Any

import click

SIZE_UNITS = {"": 1, "k": 1000, "M": 1_000_000}


class ByteSize(click.ParamType[int]):
    """A number of bytes, with k (1000) or M (1000000) if wanted."""

    name = "N[k|M]"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Parse, or fail as a usage error."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size such as 4000, 12k or 1.5M", param, ctx)
        return int(float(match[1]) * SIZE_UNITS[match[2]])


class Tile(click.ParamType["int | None"]):
    """auto, off or a number of pixels, given on as None, 0 or the number."""

    name = "auto|off|PX"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | None:
        """Parse, or fail as a usage error."""
        named: dict[str, int | None] = {"auto": None, "off": 0}
        if value in named:
            return named[value]
        if str(value).isdecimal() and int(value) >= 64:
            return int(value)
        self.fail(f"{value!r} is neither auto, off nor a number of pixels >= 64", param, ctx)


class Strip(click.ParamType["frozenset[str]"]):
    """A comma-separated choice of metadata."""

    name = "exif,xmp,icc,all"

    def convert(self, value: Any, param: Any, ctx: Any) -> frozenset[str]:
        """Parse, or fail as a usage error."""
        if isinstance(value, frozenset):
            return value
        words = frozenset(value.split(","))
        if words - {"exif", "xmp", "icc", "all"}:
            self.fail(f"{value!r} is not a list of exif, xmp, icc or all", param, ctx)
        return frozenset({"exif", "xmp", "icc"}) if "all" in words else words


class Range(click.ParamType["tuple[float, float]"]):
    """Two positive numbers LOW:HIGH."""

    name = "LOW:HIGH"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        """Parse, or fail as a usage error."""
        try:
            low, high = (float(part) for part in str(value).split(":"))
        except ValueError:
            self.fail(f"{value!r} is not of the form LOW:HIGH", param, ctx)
        if not 0 < low < high:
            self.fail(f"{value!r}: 0 < LOW < HIGH is needed", param, ctx)
        return low, high
