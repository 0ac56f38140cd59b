"""Names of shards and of what is in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

from bkcodec.errors import UsageError

MAX_SHARDS = 1_000_000  # that one pattern may stand for
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_SAMPLE = re.compile(r"((?:.*/|)[^./][^./]*)\.[^/]*", re.DOTALL)


def shard_names(patterns: Iterable[str]) -> list[str]:
    """Patterns with ``{000..999}`` or ``{train,val}`` as the names that they stand for.

    A file whose name has braces is that file.

    Raises:
        UsageError: more than ``MAX_SHARDS``.
    """
    names: list[str] = []
    for pattern in patterns:
        names += [pattern] if os.path.lexists(pattern) else _expanded(pattern)
        if len(names) > MAX_SHARDS:
            raise UsageError(f"{pattern}: more than {MAX_SHARDS:,} shards")
    return names


def _expanded(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    rests = _expanded(pattern[match.end() :])
    words = match[3].split(",") if match[3] is not None else _numbers(match[1], match[2])
    if len(words) * len(rests) > MAX_SHARDS:
        raise UsageError(f"{pattern}: more than {MAX_SHARDS:,} shards")
    return [pattern[: match.start()] + word + rest for word in words for rest in rests]


def _numbers(first: str, last: str) -> list[str]:
    """As the shell does it: leading zeros give the width, and rows may go down."""
    low, high = int(first), int(last)
    if abs(high - low) >= MAX_SHARDS:
        raise UsageError(f"{{{first}..{last}}}: more than {MAX_SHARDS:,} shards")
    has_zeros = any(len(text) > 1 and text.startswith("0") for text in (first, last))
    width = max(len(first), len(last)) if has_zeros else 0
    step = 1 if low <= high else -1
    return [f"{number:0{width}}" for number in range(low, high + step, step)]


def sample_of(name: str) -> str:
    """What a member shares with the others of its sample: all before the name's first dot."""
    match = _SAMPLE.fullmatch(name)
    return match[1] if match else name


Renaming = Callable[[str], str | None]


def renaming(extensions: Iterable[str], new: str, keep_extension: bool = False) -> Renaming:
    """Find a member's new name; None for members that are to stay as they are.

    Args:
        extensions: of the members that are converted, without dots, in any case.
        new: their extension afterwards, without a dot.
        keep_extension: whether it is added to the name instead of replacing the old one.
    """
    ending = re.compile(rf"\.(?:{'|'.join(extensions)})", re.IGNORECASE)

    def renamed(name: str) -> str | None:
        stem, dot, extension = name.rpartition(".")
        if _SAMPLE.fullmatch(name) is None or not ending.fullmatch(dot + extension):
            return None
        return f"{name if keep_extension else stem}.{new}"

    return renamed
