"""Files: read up to a limit, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import select
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from io import BufferedWriter
from pathlib import Path
from typing import BinaryIO, cast

from bkcodec.errors import BkcError, FormatError, InputError, LimitError, UsageError
from bkcodec.remote import Url

STREAM = "-"
_KINDS = "png apng jpg jpeg jpe jfif webp tif tiff bmp gif ppm pgm pbm pnm avif jp2 tga ico qoi"
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
_IMAGES = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")  # their beginnings
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".bkcodec-", ".tmp"
_CHUNK = 2**22  # bytes that are read at once
_HEAD = 64  # bytes by which a limit is found
_MAX_LINKS = 40  # that are followed, as in Linux
_DESCRIPTOR = re.compile(r"/proc/[^/]+(?:/task/\d+)?/fd/\d+|/dev/fd/\d+")
_LOCK = threading.Lock()
_TEMPORARIES: set[Path] = set()
_SPOOL_BYTES = 2**26  # kept in memory on the way to standard output


Limit = int | Callable[[bytes], int]  # bytes, or how many a file may have that begins so


def read_whole(path: Path | Url | None, limit: Limit, magic: bytes = b"") -> bytes:
    """The bytes of a file.

    Args:
        path: of the file, or its URL; None = standard input.
        limit: one byte more and the file is refused.
        magic: what it must begin with, or no more of it is read.

    Raises:
        InputError: unreadable, or empty.
        FormatError: another beginning than ``magic``.
        LimitError: too long.
    """
    try:
        if path is None:
            if sys.stdin is None:
                raise InputError("standard input is closed")
            data = read_limited(sys.stdin.buffer, limit, magic)
        else:
            with path.open("rb") as file:
                data = read_limited(file, limit, magic)
    except FileNotFoundError as error:
        raise InputError("no such file") from error
    except (OSError, ValueError) as error:  # the latter: a name with a NUL
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise (FormatError if magic else InputError)("the input is empty")
    if not data.startswith(magic):
        hint = "an image; use encode" if data.startswith(_IMAGES) else "wrong magic bytes"
        raise FormatError(f"not a .bkc file ({hint})")
    return data


def read_limited(file: BinaryIO, limit: Limit, magic: bytes = b"") -> bytes:
    """Read a file object to its end, unless it begins otherwise than with ``magic``.

    It is read chunk by chunk: reading with a limit reserves as much as the limit.

    Raises:
        LimitError: longer than ``limit`` allows.
    """
    data = bytearray(read_up_to(file, len(magic)))
    if data == magic:
        while chunk := read_up_to(file, _CHUNK):
            data += chunk
            largest = limit(bytes(data[:_HEAD])) if callable(limit) else limit
            if len(data) > largest:
                raise LimitError(f"file larger than the limit of {largest} bytes")
    return bytes(data)


def read_up_to(file: BinaryIO, n_bytes: int) -> bytes:
    """So many bytes, or what there is to the end, also where a pipe gives less, or nothing yet."""
    data: bytes | None = file.read(n_bytes)
    if data is not None and len(data) in (0, n_bytes):
        return data
    pieces = bytearray(data or b"")
    while len(pieces) < n_bytes and (data is None or data):
        if data is None:  # somebody made the pipe one that does not wait
            select.select([file], [], [])
        data = file.read(n_bytes - len(pieces))
        pieces += data or b""
    return bytes(pieces)


Content = bytes | Callable[[BinaryIO], object]  # or what writes it into an open file


def output_stream() -> BinaryIO:
    """Standard output, for bytes.

    Raises:
        UsageError: it is closed, or a terminal, which takes some bytes for commands.
    """
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("standard output is closed or a terminal; redirect it")
    return _buffered(sys.stdout.buffer)


@lru_cache(1)
def _buffered(stream: BinaryIO) -> BinaryIO:
    """A stream that writes all it is given, also where Python was told not to buffer its own."""
    if isinstance(stream, io.RawIOBase):
        return cast(BinaryIO, io.BufferedWriter(stream))
    return stream


def write_stream(content: Content) -> None:
    """Write to standard output, once everything is there.

    Raises:
        UsageError: it is closed or a terminal.
        BkcError: no room for a temporary file, or behind standard output.
    """
    try:
        _write_through(content, output_stream())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BkcError(f"standard output: cannot be written: {error.strerror or error}") from error


def _write_through(content: Content, stream: BinaryIO) -> None:
    """Write into what cannot seek, once everything is there."""
    if not callable(content):
        stream.write(content)
    else:
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            try:
                content(cast(BinaryIO, spool))
            except OSError as error:
                raise BkcError(f"temporary file: {error.strerror or error}") from error
            spool.seek(0)
            shutil.copyfileobj(spool, stream)
    stream.flush()


def write_whole(path: Path | Url, content: Content, force: bool = False) -> None:
    """Write a file so that it is there completely or not at all.

    What leads to a pipe, a device or an open file of a process is written to instead.

    Args:
        path: where; its folder is made if it is missing. A URL's store decides how whole.
        content: bytes, or what writes them into an open file.
        force: replace a file that exists; the new one gets its mode.

    Raises:
        InputError: it exists and ``force`` is off, or it is a folder.
        BkcError: the system refuses (disk full, no permission).
    """
    try:
        if isinstance(path, Url):
            if not force and path.exists():
                raise in_the_way(path)
            path.write(content)
            return
        refuse_folder(path)
        if is_stream(path):
            with open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as stream:
                _write_through(content, stream)
            return
        _make_folder(path.parent)
        with _temporary_beside(path) as file, file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            if force:
                if path.is_file() and not path.is_symlink():
                    shutil.copymode(path, file.name)
                os.replace(file.name, path)
            elif not _moved_to_free_name(Path(file.name), path):
                raise in_the_way(path)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BkcError(
            f"{printable(path)}: cannot be written: {error.strerror or error}"
        ) from error


def _make_folder(folder: Path) -> None:
    """Make a folder that a file is to be in, and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def is_taken(path: Path | Url) -> bool:
    """Whether an output is there already; what is written to, as a pipe is, does not count.

    Raises:
        InputError: it is a folder.
    """
    if isinstance(path, Url):
        return path.exists()
    if not os.path.lexists(path) or is_stream(path):
        return False
    refuse_folder(path)
    return True


def in_the_way(path: Path | Url) -> InputError:
    """The error of an output that exists."""
    return InputError(f"{printable(path)}: exists already; --force overwrites it")


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[BufferedWriter]:
    """A file whose name is gone afterwards, also when the process is told to stop."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    with _LOCK:
        _TEMPORARIES.add(temporary)
        file = temporary.open("xb")
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _TEMPORARIES.discard(temporary)


def remove_temporaries() -> None:
    """Remove the unfinished files of all threads, just before the process ends.

    No thread begins another one from here on: it waits for the end.
    """
    _LOCK.acquire(timeout=1)
    for temporary in list(_TEMPORARIES):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether a path leads to a pipe, a device, or an open file of a process, as /dev/stdout does.

    Such a thing is written to: a file in its place would be no use to whoever reads from it.
    """
    for _ in range(_MAX_LINKS):
        if _DESCRIPTOR.fullmatch(os.path.join(os.path.realpath(path.parent), path.name)):
            return True
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return path.exists() and not path.is_file() and not path.is_dir()


def refuse_folder(path: Path) -> None:
    """Refuse to replace a folder by a file (InputError)."""
    if path.is_dir():
        raise InputError(f"{printable(path)}: is a folder")


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
