"""One shard to another, as a stream: members are converted by several threads and stay in order."""

from __future__ import annotations

import tarfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

from bkcodec.errors import BkcError, first_line
from bkcodec.shards.members import BLOCK, Member, Shard
from bkcodec.shards.names import Renaming, sample_of

SMALL = 2**20  # bytes up to which a member that stays may wait for those before it
MAX_WAITING = 2**26  # bytes of members that wait, the next one not counted


@dataclass(frozen=True, slots=True)
class Failure:
    """A member that could not be converted, or should not be there, and why."""

    member: str
    reason: str


@dataclass(slots=True)
class Tally:
    """What became of a shard.

    Attributes:
        members: how many it had.
        converted: how many of them are others now.
        failures: those that failed, in order.
        bytes_before: of the tar file that was read, uncompressed.
        bytes_after: of the one that was written.
    """

    members: int = 0
    converted: int = 0
    failures: list[Failure] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass(frozen=True, slots=True)
class Conversion:
    """What becomes of members.

    Attributes:
        renamed: a member's new name, or None for members that stay as they are.
        change: a member's content to its new one; called by several threads.
        max_bytes: larger members are not read, and fail.
        n_workers: threads.
        drop_failed: whether members that fail are left out; else they stay as they were.
    """

    renamed: Renaming
    change: Callable[[bytes], bytes]
    max_bytes: int
    n_workers: int = 1
    drop_failed: bool = False


def convert(source: BinaryIO, target: BinaryIO, conversion: Conversion) -> Tally:
    """Read a shard and write what becomes of it.

    The same shard gives the same bytes, however many threads there are. At no time more than
    ``MAX_WAITING`` bytes and one member are in memory.

    Raises:
        InputError: the shard is damaged, cut or unreadable; what was written has no end then.
        OSError: the target takes no more.
    """
    shard = Shard(source)
    pool = ThreadPoolExecutor(conversion.n_workers)
    try:
        row = _Row(target, conversion)
        names = _Names()
        for member in shard:
            row.tally.members += 1
            name = None if member.is_folder else conversion.renamed(member.name)
            reason = _objection(member, name, names, conversion.max_bytes)
            if reason is not None:
                row.keep(member, shard, Failure(member.name, reason))
            elif name is None:
                row.keep(member, shard)
            else:
                content = shard.read()
                row.add(pool.submit(_changed, member, name, content, conversion), len(content))
        row.end()
    finally:  # who stops does not wait for the members that are at work
        pool.shutdown(wait=False, cancel_futures=True)
    row.tally.bytes_before = shard.n_bytes
    return row.tally


class _Names:
    """The names of the sample that is being read."""

    def __init__(self) -> None:
        self._sample, self._names = "", set[str]()

    def is_new(self, name: str) -> bool:
        """Whether the sample has no such name yet; it has from now on."""
        sample = sample_of(name)
        if sample != self._sample:
            self._sample, self._names = sample, set()
        is_new = name not in self._names
        self._names.add(name)
        return is_new


def _objection(member: Member, name: str | None, names: _Names, max_bytes: int) -> str | None:
    """Why a member cannot become, or stay, what it is to be."""
    if member.problem is not None or member.is_folder:
        return member.problem
    if not names.is_new(name or member.name):
        return (
            "its sample has this name twice" if name is None else f"its sample has {name} already"
        )
    if name is not None and member.size > max_bytes:
        return f"{member.size:,} bytes are more than the limit of {max_bytes:,} bytes"
    return None


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some bytes of the new shard, and what they are."""

    data: bytes
    is_converted: bool = False
    failure: Failure | None = None


def _changed(member: Member, name: str, content: bytes, conversion: Conversion) -> _Piece:
    """The piece of one member that is to be converted."""
    try:
        data = conversion.change(content[: member.size])
        return _Piece(member.renamed(name, len(data)) + data + bytes(-len(data) % BLOCK), True)
    except Exception as error:  # the shard goes on; the caller names what failed
        text = first_line(error)
        if not isinstance(error, BkcError):
            text = f"unexpected {type(error).__name__}: {text}"
        return _Piece(bytes(member.headers) + content, failure=Failure(member.name, text))


class _Row:
    """Pieces of the new shard in order, some of which are still being made."""

    def __init__(self, target: BinaryIO, conversion: Conversion) -> None:
        self._target, self._conversion = target, conversion
        self._pieces: deque[tuple[_Piece | Future[_Piece], int]] = deque()
        self._n_bytes = self._n_futures = 0
        self.tally = Tally()

    def add(self, piece: _Piece | Future[_Piece], n_bytes: int) -> None:
        """Put a piece behind the others, of which some may have to be waited for."""
        self._pieces.append((piece, n_bytes))
        self._n_bytes += n_bytes
        self._n_futures += isinstance(piece, Future)
        while self._pieces and (self._is_full() or self._is_ready()):
            self._write_first()

    def keep(self, member: Member, shard: Shard, failure: Failure | None = None) -> None:
        """Add a member as it is, or leave it out."""
        if failure is not None and self._conversion.drop_failed:
            self.add(_Piece(b"", failure=failure), 0)
            return
        if member.size <= SMALL:
            data = bytes(member.headers) + shard.read()
            self.add(_Piece(data, failure=failure), len(data))
            return
        self.add(_Piece(bytes(member.headers), failure=failure), len(member.headers))
        while self._pieces:
            self._write_first()
        for chunk in shard.chunks():
            self._write(chunk)

    def end(self) -> None:
        """Write all that is left, and the end of the archive."""
        while self._pieces:
            self._write_first()
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self.tally.bytes_after % tarfile.RECORDSIZE))

    def _is_full(self) -> bool:
        is_much = self._n_bytes > MAX_WAITING and len(self._pieces) > 1
        return is_much or self._n_futures > 2 * self._conversion.n_workers

    def _is_ready(self) -> bool:
        piece, _ = self._pieces[0]
        return isinstance(piece, _Piece) or piece.done()

    def _write_first(self) -> None:
        piece, n_bytes = self._pieces.popleft()
        self._n_bytes -= n_bytes
        if isinstance(piece, Future):
            self._n_futures -= 1
            piece = piece.result()
        self.tally.converted += piece.is_converted
        if piece.failure is not None:
            self.tally.failures.append(piece.failure)
        if piece.failure is None or not self._conversion.drop_failed:
            self._write(piece.data)

    def _write(self, data: bytes) -> None:
        self._target.write(data)
        self.tally.bytes_after += len(data)
