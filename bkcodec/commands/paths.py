"""Which input becomes which output."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bkcodec.errors import InputError, UsageError
from bkcodec.files import STREAM, printable

EXTENSION = ".bkc"


@dataclass(frozen=True, slots=True)
class Job:
    """One file to make. ``None`` stands for standard input or output."""

    source: Path | None
    target: Path | None

    @property
    def name(self) -> str:
        """The input, for messages."""
        return str(self.source) if self.source is not None else "standard input"


def plan(
    inputs: Iterable[str],
    output: str | None,
    extension: str,
    suffixes: frozenset[str],
    recursive: bool,
) -> list[Job]:
    """Pair every input file with its output.

    Args:
        inputs: files, directories, or "-".
        output: a file, a directory (exists, or ends in a slash), "-", or None = beside the input.
        extension: of the outputs, with the dot.
        suffixes: which files of an input directory count, lower case.
        recursive: look into subdirectories too; their tree is recreated below ``output``.

    Raises:
        InputError: no such file, or a directory without a fitting one.
        UsageError: outputs that collide with each other or with an input.
    """
    sources: list[tuple[Path | None, Path]] = []  # source and its place below an output directory
    texts = list(inputs)
    if output == "":
        raise UsageError("--output: an empty name")
    for text in texts:
        path = Path(text)
        if text == STREAM:
            sources.append((None, Path()))
        elif text and path.is_dir():
            sources += _in_directory(path, suffixes, recursive)
        elif text and (
            path.exists() or len(texts) > 1
        ):  # in a batch, a missing file is one failure
            sources.append((path, Path(path.name)))
        else:
            raise InputError(f"{printable(text)!r}: no such file")
    jobs = [Job(source, _target(source, place, output, extension)) for source, place in sources]
    _check(jobs, output)
    return jobs


def _in_directory(
    folder: Path, suffixes: frozenset[str], recursive: bool
) -> list[tuple[Path | None, Path]]:
    paths = folder.rglob("*") if recursive else folder.glob("*")
    files = sorted(p for p in paths if p.suffix.lower() in suffixes and p.is_file())
    if not files:
        hint = "" if recursive else " (subdirectories need --recursive)"
        raise InputError(f"{printable(folder)}: nothing to do in this directory{hint}")
    return [(p, p.relative_to(folder)) for p in files]


def _target(source: Path | None, place: Path, output: str | None, extension: str) -> Path | None:
    if output == STREAM or (source is None and output is None):
        return None
    if output is None:
        assert source is not None
        return source.with_suffix(extension)
    if is_directory(output):
        if source is None:
            raise UsageError("standard input needs a file name as output, not a directory")
        return Path(output) / place.with_suffix(extension)
    return Path(output)


def is_directory(output: str) -> bool:
    """Whether an output names a directory: it exists as one, or ends in a slash."""
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def _check(jobs: list[Job], output: str | None) -> None:
    if len(jobs) > 1 and output is not None and not (output != STREAM and is_directory(output)):
        raise UsageError(f"{len(jobs)} inputs need a directory as output, not {printable(output)}")
    if sum(job.source is None for job in jobs) > 1:
        raise UsageError("standard input was named twice")
    sources = {job.source.resolve() for job in jobs if job.source is not None}
    taken: dict[Path, str] = {}
    for job in jobs:
        if job.target is None:
            continue
        target = job.target.resolve()
        if target in sources:
            raise UsageError(f"{printable(job.target)} is an input; it would be overwritten")
        if target in taken:
            raise UsageError(
                f"{printable(taken[target])} and {printable(job.name)} would both become "
                f"{printable(job.target)}"
            )
        taken[target] = job.name
