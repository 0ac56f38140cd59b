"""Which file goes where, and how it gets there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from bkcodec.errors import BkcError, FormatError, InputError, LimitError, UsageError

STREAM = "-"
IMAGE_SUFFIXES = frozenset(
    [
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".jp2",
        ".tga",
        ".ico",
        ".qoi",
    ]
)
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".bkcodec-", ".tmp"
_CHUNK = 2**22  # bytes that are read at once
_SPOOL_BYTES = 2**26  # kept in memory on the way to standard output


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
    inputs: Iterable[str], output: str | None, extension: str, suffixes: frozenset[str],
    recursive: bool,
) -> list[Job]:  # fmt: skip
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
    found: list[tuple[Path | None, Path]] = []  # source and its place below an output directory
    texts = list(inputs)
    if output == "":
        raise UsageError("--output: an empty name")
    for text in texts:
        path = Path(text)
        if text == STREAM:
            found.append((None, Path()))
        elif text and path.is_dir():
            found += _in_directory(path, suffixes, recursive)
        elif text and (
            path.exists() or len(texts) > 1
        ):  # in a batch, a missing file is one failure
            found.append((path, Path(path.name)))
        else:
            raise InputError(f"{printable(text)!r}: no such file")
    jobs = [Job(source, _target(source, place, output, extension)) for source, place in found]
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


def read_input(job: Job, limit: int, magic: bytes = b"") -> bytes:
    """The bytes of a job's input.

    Args:
        job: whose input.
        limit: bytes; one more and the input is refused.
        magic: what it must begin with, or no more of it is read.

    Raises:
        InputError: unreadable, or empty.
        FormatError: another beginning.
        LimitError: too long.
    """
    try:
        if job.source is None:
            data = _read(sys.stdin.buffer, limit, magic)
        else:
            with job.source.open("rb") as file:
                data = _read(file, limit, magic)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise InputError("the input is empty")
    if not data.startswith(magic):
        raise FormatError("not a .bkc file (wrong magic bytes)")
    return data


def _read(file: BinaryIO, limit: int, magic: bytes) -> bytes:
    """Chunk by chunk: reading with a limit reserves as much as the limit."""
    data = bytearray(file.read(len(magic)))
    if data == magic:
        while chunk := file.read(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise LimitError(f"larger than the limit of {limit} bytes")
    return bytes(data)


Content = bytes | Callable[[BinaryIO], object]  # or what writes it into an open file


def write_stream(content: Content) -> None:
    """Write to standard output, once everything is there.

    Raises:
        UsageError: it is a terminal, which takes some bytes for commands.
        BkcError: no room for a temporary file.
    """
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("standard output is closed or a terminal; redirect it")
    if not callable(content):
        sys.stdout.buffer.write(content)
    else:
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            try:
                content(cast(BinaryIO, spool))
            except OSError as error:
                raise BkcError(f"temporary file: {error.strerror or error}") from error
            spool.seek(0)
            shutil.copyfileobj(spool, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def write_whole(path: Path, content: Content, force: bool = False) -> None:
    """Write a file so that it is there completely or not at all.

    Args:
        path: where; its folder is made if it is missing.
        content: bytes, or what writes them into an open file.
        force: replace a file that exists.

    Raises:
        InputError: it exists and ``force`` is off, or it is no regular file.
        BkcError: the system refuses (disk full, no permission).
    """
    refuse_special(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(temporary, path)
        elif not _moved_to_free_name(temporary, path):
            raise InputError(f"{printable(path)}: exists already; --force overwrites it")
    except OSError as error:
        raise BkcError(
            f"{printable(path)}: cannot be written: {error.strerror or error}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def refuse_special(path: Path) -> None:
    """Refuse to replace a device, a pipe or a directory by a file (InputError)."""
    if path.exists() and not path.is_file():
        raise InputError(f"{printable(path)}: is no regular file; -o - writes to pipes and devices")


def _moved_to_free_name(temporary: Path, path: Path) -> bool:
    """Rename, but never over something that appeared meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.replace(temporary, path)
    return True


def printable(name: object) -> str:
    """A name without control characters: it goes to a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(name))
