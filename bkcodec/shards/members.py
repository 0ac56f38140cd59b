"""Members of a tar file, one after the other, with their headers as they stand.

``tarfile`` reads single header blocks here and writes new ones. Its own stream mode takes a damaged
header for the end of the archive, keeps every member in memory, and reads extension headers of any
length; this module does none of that.
"""

from __future__ import annotations

import copy
import gzip
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from bkcodec.errors import InputError
from bkcodec.files import printable, read_up_to
from bkcodec.remote import Url

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER_BYTES = 2**20  # of one member, extension headers included
MAX_ZEROS = 2**24  # bytes between one member and the next, or the end
MAX_EXTENSIONS = 16  # headers of one member before its own
_CHUNK = 2**16  # bytes that are read or copied at once
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENSIONS = (*_PAX, *_LONG, tarfile.XGLTYPE)
_ONE_MEMBER = ("path", "linkpath", "size")  # what a header for all members cannot say
_COMPRESSED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SPECIAL = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
_CODING = ("utf-8", "surrogateescape")


@dataclass(slots=True)
class Member:
    """One entry of a tar file.

    Attributes:
        headers: all its header blocks, as they stand.
        info: what the last of them says.
        records: what a PAX header says beyond that.
        long_name: what a GNU header says beyond that.
    """

    headers: bytearray = field(default_factory=bytearray)
    info: tarfile.TarInfo = field(default_factory=tarfile.TarInfo)
    records: dict[str, str] = field(default_factory=dict)
    long_name: str | None = None

    @property
    def name(self) -> str:
        """Path in the archive."""
        return self.records.get("path") or self.long_name or self.info.name

    @property
    def size(self) -> int:
        """Bytes of content that follow the headers."""
        kind = self.info.type
        if kind in tarfile.SUPPORTED_TYPES and kind not in tarfile.REGULAR_TYPES:
            return 0  # links, folders and devices have none, whatever they say
        text = self.records.get("size", "")
        return int(text) if text else self.info.size

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return self.info.type == tarfile.DIRTYPE

    @property
    def is_sparse(self) -> bool:
        """Whether the content has holes that are not stored."""
        is_pax = any(key.startswith("GNU.sparse.") for key in self.records)
        return is_pax or self.info.type == tarfile.GNUTYPE_SPARSE

    @property
    def problem(self) -> str | None:
        """Why no data set should have such a member; None for files and folders."""
        if self.name.startswith("/") or ".." in self.name.split("/"):
            return "its name leads out of the folder that it is unpacked into"
        if self.info.type in _SPECIAL:
            return f"{_SPECIAL[self.info.type]}, not a file"
        return "a sparse file, which is not read" if self.is_sparse else None

    def renamed(self, name: str, size: int) -> bytes:
        """The headers of a file of another name and size; all else, and their format, stay.

        Raises:
            InputError: numbers that no header can hold.
        """
        info = copy.copy(self.info)
        info.name, info.size = name, size
        fixed = ("path", "size", "hdrcharset")
        info.pax_headers = {k: v for k, v in self.records.items() if k not in fixed}
        is_posix = self.headers[-BLOCK:][257:].startswith(b"ustar\0")
        try:
            if not is_posix:
                return info.tobuf(tarfile.GNU_FORMAT, *_CODING)
            if not self.records:
                with suppress(ValueError):  # what ustar cannot say, PAX can
                    return info.tobuf(tarfile.USTAR_FORMAT, *_CODING)
            return info.tobuf(tarfile.PAX_FORMAT, *_CODING)
        except ValueError as error:
            raise InputError(f"its header cannot be written anew: {error}") from error


class Shard:
    """Reads a tar file from front to back.

    Iterating gives the members. Until the next one is asked for, ``read`` and ``copy_to`` give the
    current one's content; what is not taken is skipped.

    Args:
        file: need not be able to seek.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = 0  # bytes of the current member, up to a whole block
        self._n_members = 0
        self.n_bytes = 0  # read so far

    def __iter__(self) -> Iterator[Member]:
        """Members in order.

        Raises:
            InputError: not a tar file, damaged, cut, or not readable.
        """
        while (block := self._first_block()) is not None:
            member = self._member(block)
            self._n_members += 1
            yield member
            for _ in self.chunks():
                pass

    def read(self) -> bytes:
        """The current member's content, filled up to a whole block."""
        data = self._take(self._left)
        self._left = 0
        return data

    def chunks(self) -> Iterator[bytes]:
        """The same in pieces, for what may be large."""
        while self._left:
            chunk = self._take(min(self._left, _CHUNK))
            self._left -= len(chunk)
            yield chunk

    def _first_block(self) -> bytes | None:
        """The next member's first header; None at the end. Archives may follow one another."""
        for n_zeros in range(0, MAX_ZEROS, BLOCK):
            block = self._read(BLOCK)
            if n_zeros and not block.strip(b"\0") and len(block) < BLOCK:
                return None
            if not block and not self.n_bytes:
                raise InputError("the input is empty")
            if len(block) < BLOCK:
                raise self._cut()
            if block.strip(b"\0"):
                return block
        raise InputError(f"nothing but zeros for {MAX_ZEROS:,} bytes")

    def _member(self, block: bytes) -> Member:
        member, is_first = Member(), self.n_bytes == BLOCK
        for _ in range(MAX_EXTENSIONS + 1):
            try:
                member.info = tarfile.TarInfo.frombuf(block, *_CODING)
            except tarfile.HeaderError as error:
                text = "not a tar file" if is_first else f"damaged at byte {self.n_bytes - BLOCK:,}"
                raise InputError(text) from error
            member.headers += block
            if member.info.type not in _EXTENSIONS:
                self._finish(member)
                return member
            self._extend(member)
            block = self._take(BLOCK)
        raise InputError(f"damaged: more than {MAX_EXTENSIONS} extension headers in a row")

    def _extend(self, member: Member) -> None:
        """Read what stands in an extension header."""
        kind, size = member.info.type, member.info.size
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise InputError(f"an extension header of {size:,} bytes")
        data = self._take(_whole_blocks(size))
        member.headers += data
        data = data[:size]
        if kind in _PAX:
            member.records |= _records(data)
        elif kind == tarfile.GNUTYPE_LONGNAME:
            member.long_name = data.partition(b"\0")[0].decode(*_CODING)
        elif kind == tarfile.XGLTYPE and any(key in _ONE_MEMBER for key in _records(data)):
            raise InputError("a header gives all members the same name or size")

    def _finish(self, member: Member) -> None:
        """Read on to the content."""
        if member.info.type == tarfile.GNUTYPE_SPARSE:  # a list of pieces, in more blocks
            goes_on = member.headers[-BLOCK:][482]
            while goes_on:
                block = self._take(BLOCK)
                member.headers += block
                goes_on = block[504]
                if len(member.headers) > MAX_HEADER_BYTES:
                    raise InputError("a sparse file of too many pieces")
        text = member.records.get("size", "0")
        if not (text.isascii() and text.isdecimal() and len(text) < 20) or member.size < 0:
            raise InputError(f"{printable(member.name)}: a size that is no number")
        self._left = _whole_blocks(member.size)

    def _take(self, n_bytes: int) -> bytes:
        """So many bytes; piece by piece, as reading reserves what is asked for at once."""
        data = self._read(min(n_bytes, _CHUNK))
        if len(data) < n_bytes:
            pieces = bytearray(data)
            while data and len(pieces) < n_bytes:
                data = self._read(min(n_bytes - len(pieces), _CHUNK))
                pieces += data
            data = bytes(pieces)
        if len(data) < n_bytes:
            raise self._cut()
        return data

    def _cut(self) -> InputError:
        place = f"in member {self._n_members:,}" if self._n_members else "at its beginning"
        if not self._left and self._n_members:
            place = f"after member {self._n_members:,}"
        return InputError(f"the tar file is cut: it ends after {self.n_bytes:,} bytes, {place}")

    def _read(self, n_bytes: int) -> bytes:
        try:
            data = read_up_to(self._file, n_bytes)
        except EOFError:  # gzip's
            data = b""
        except (OSError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot be read: {reason}") from error
        self.n_bytes += len(data)
        return data


def _whole_blocks(n_bytes: int) -> int:
    return -(-n_bytes // BLOCK) * BLOCK


def _records(data: bytes) -> dict[str, str]:
    """What a PAX header says: records of the form "LENGTH KEY=VALUE", a line each."""
    records, start = {}, 0
    while start < len(data) and data[start]:
        digits, _, _ = data[start : start + 20].partition(b" ")
        end = start + int(digits) if digits.isdigit() else 0
        record = data[start + len(digits) + 1 : end]
        if not record.endswith(b"\n") or b"=" not in record or end > len(data):
            raise InputError("damaged: a PAX header that is none")
        key, _, value = record[:-1].partition(b"=")
        records[key.decode(*_CODING)] = value.decode(*_CODING)
        start = end
    return records


@contextmanager
def open_shard(path: Path | Url | None) -> Iterator[BinaryIO]:
    """Open a tar file, also one that was compressed with gzip.

    Args:
        path: or URL; None = standard input.

    Raises:
        InputError: unreadable, or compressed in another way.
    """
    if path is None and sys.stdin is None:
        raise InputError("standard input is closed")
    with ExitStack() as stack:
        try:
            file = sys.stdin.buffer if path is None else stack.enter_context(path.open("rb"))
            head = cast(io.BufferedReader, file).peek(8)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}") from error
        for magic, name in _COMPRESSED.items():
            if head.startswith(magic):
                raise InputError(f"compressed with {name}; decompress it first")
        is_gzip = head.startswith(b"\x1f\x8b")
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_gzip else file
