"""Files: read up to a limit, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from bkcodec.errors import BkcError, FormatError, InputError, LimitError, UsageError

STREAM = "-"
_KINDS = "png apng jpg jpeg jpe jfif webp tif tiff bmp gif ppm pgm pbm pnm avif jp2 tga ico qoi"
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".bkcodec-", ".tmp"
_CHUNK = 2**22  # bytes that are read at once
_SPOOL_BYTES = 2**26  # kept in memory on the way to standard output


def read_whole(path: Path | None, limit: int, magic: bytes = b"") -> bytes:
    """The bytes of a file.

    Args:
        path: of the file; None = standard input.
        limit: bytes; one more and the file is refused.
        magic: what it must begin with, or no more of it is read.

    Raises:
        InputError: unreadable, or empty.
        FormatError: another beginning.
        LimitError: too long.
    """
    try:
        if path is None:
            data = read_limited(sys.stdin.buffer, limit, magic)
        else:
            with path.open("rb") as file:
                data = read_limited(file, limit, magic)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise InputError("the input is empty")
    if not data.startswith(magic):
        raise FormatError("not a .bkc file (wrong magic bytes)")
    return data


def read_limited(file: BinaryIO, limit: int, magic: bytes = b"") -> bytes:
    """Read a file object to its end, unless it begins otherwise than with ``magic``.

    It is read chunk by chunk: reading with a limit reserves as much as the limit.

    Raises:
        LimitError: more than ``limit`` bytes.
    """
    data = bytearray(file.read(len(magic)))
    if data == magic:
        while chunk := file.read(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise LimitError(f"file larger than the limit of {limit} bytes")
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
