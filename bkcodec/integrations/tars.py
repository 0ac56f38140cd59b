"""Tar shards as WebDataset lays them out: neighbours that share a key are one sample.

The key of a member is its path up to the first dot of its name, and the rest is its extension.
"""

from __future__ import annotations

import io
import logging
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from bkcodec.codec import Codec
from bkcodec.errors import BkcError, InputError, LimitError, first_line
from bkcodec.files import IMAGE_SUFFIXES, printable, read_whole, write_whole
from bkcodec.options import EncodeOptions, Limits
from bkcodec.remote import Url, located

EXTENSION = ".tar"
PHOTOS = frozenset({".jpg", ".jpeg", ".png", ".webp"})  # of a tar's members
_IN_MEMORY = 2**27  # bytes of a shard that wait in memory until it is complete
log = logging.getLogger(__name__)


def split_name(name: str) -> tuple[str, str]:
    """A member's key and its extension, without the dot."""
    folder, slash, last = name.rpartition("/")
    key, _, extension = last.partition(".")
    return folder + slash + key, extension


def members(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files of a tar, one after the other as it is read; what is no file is left out.

    Raises:
        LimitError: a member that is longer than any photo may be.
        InputError: no tar, or a damaged one.
    """
    limit = Limits().max_file_bytes
    try:
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if member.size > limit:
                    raise LimitError(f"{printable(member.name)}: larger than {limit} bytes")
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    data = content.read()
                    yield member, data
                tar.members = []  # type: ignore[attr-defined]  # or it remembers them all
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise InputError(f"damaged tar: {first_line(error)}") from error


def samples(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The samples of a shard: bytes by extension, and the key as ``__key__``."""
    sample: dict[str, Any] = {}
    for member, data in members(file):
        key, extension = split_name(member.name)
        if sample.get("__key__") != key:
            if sample:
                yield sample
            sample = {"__key__": key}
        sample[extension] = data
    if sample:
        yield sample


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to make.

    Attributes:
        target: path or URL of the tar to write.
        source: path or URL of the tar to encode, or None for single files.
        files: their names in the shard, and their paths or URLs.
    """

    target: str
    source: str | None = None
    files: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a shard.

    Attributes:
        shard: path or URL of the tar.
        photos: photos that were encoded.
        kept: members that are no photos, or could not be encoded; they are there as they were.
        failures: which photos could not be encoded, and why.
        bytes_before, bytes_after: of the photos that were encoded.
        seconds: that it took.
        skipped: whether the shard was there already.
        error: why there is no such shard, or "".
    """

    shard: str
    photos: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0
    skipped: bool = False
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As a row."""
        return asdict(self)


def encode_shard(shard: Shard, options: EncodeOptions, force: bool = False) -> Outcome:
    """Encode the photos of a shard into another, which is there whole or not at all.

    The same shard gives the same bytes wherever and whenever it is made. What fails is in the
    outcome.
    """
    outcome, target, started = Outcome(shard.target), located(shard.target), time.perf_counter()
    try:
        if target.exists() and not force:
            outcome.skipped = True
            return outcome
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            with tarfile.open(fileobj=spool, mode="w") as tar:
                writer = _Writer(tar, options, outcome)
                for member, data, is_photo in _contents(shard):
                    writer.add(member, data, is_photo)
            spool.seek(0)
            write_whole(target, lambda file: shutil.copyfileobj(spool, file), force)
    except (BkcError, OSError) as error:
        return Outcome(shard.target, error=first_line(error))
    outcome.seconds = time.perf_counter() - started
    return outcome


def _contents(shard: Shard) -> Iterator[tuple[tarfile.TarInfo, bytes, bool]]:
    """Members to come, with whether each is a photo."""
    if shard.source is not None:
        with located(shard.source).open("rb") as file:
            for member, data in members(file):
                yield member, data, PurePosixPath(member.name).suffix.lower() in PHOTOS
    for name, place in shard.files:
        yield tarfile.TarInfo(name), read_whole(located(place), Limits().max_file_bytes), True


class _Writer:
    """Adds members to a tar, encoded if they are photos, and keeps count."""

    def __init__(self, tar: tarfile.TarFile, options: EncodeOptions, outcome: Outcome) -> None:
        self.tar, self.options, self.outcome = tar, options, outcome
        self.codec = Codec(options.model, options.device, options.needed_backbone)
        self.names: set[str] = set()

    def add(self, member: tarfile.TarInfo, data: bytes, is_photo: bool) -> None:
        """Add a member; it stays as it is if its name as a .bkc file is taken."""
        name, encoded = member.name, None
        if is_photo:
            name = name.removesuffix(PurePosixPath(name).suffix) + ".bkc"
        if is_photo and name not in self.names:
            encoded = self._encoded(member.name, data)
        if encoded is None:
            name = member.name
            self.outcome.kept += 1
        self.names.add(name)
        new, content = tarfile.TarInfo(name), data if encoded is None else encoded
        new.size, new.mtime, new.mode = len(content), int(member.mtime), member.mode
        new.uid, new.gid, new.uname, new.gname = member.uid, member.gid, member.uname, member.gname
        self.tar.addfile(new, io.BytesIO(content))

    def _encoded(self, name: str, data: bytes) -> bytes | None:
        try:
            encoded = self.codec.encode(data, self.options)
        except BkcError as error:
            log.warning("%s: %s: %s", self.outcome.shard, printable(name), error)
            self.outcome.failures.append(f"{name}: {first_line(error)}")
            return None
        self.outcome.photos += 1
        self.outcome.bytes_before += len(data)
        self.outcome.bytes_after += len(encoded)
        return encoded


def planned(inputs: list[str], out: str, photos_per_shard: int) -> list[Shard]:
    """Which shards to make of tars, photos, and folders of both.

    A tar becomes one of the same name; photos become shards of so many, in the order of names.

    Raises:
        InputError: nothing to do, or two things that would have the same name.
    """
    tars: dict[str, str] = {}
    photos: dict[str, str] = {}
    for text in inputs:
        for place, name in _files(text).items():
            group, key = (tars, place.name) if place.suffix == EXTENSION else (photos, name)
            if group.setdefault(key, str(place)) != str(place):
                raise InputError(f"{printable(place)}: there is another {printable(key)}")
    folder, files = _located(out), sorted(photos.items())
    shards = [Shard(str(folder / Path(name)), place) for name, place in sorted(tars.items())]
    for begin in range(0, len(files), photos_per_shard):
        name = f"photos-{begin // photos_per_shard:06d}{EXTENSION}"
        part = tuple(files[begin : begin + photos_per_shard])
        shards.append(Shard(str(folder / Path(name)), files=part))
    targets = [shard.target for shard in shards]
    if len(set(targets)) < len(targets):
        raise InputError(f"{printable(out)}: a tar is called like a shard of photos")
    if not shards:
        raise InputError("no photos and no tars among the inputs")
    return shards


def _located(text: str) -> Path | Url:
    """What a text names, also for a process that works in another folder."""
    place = located(text)
    return place if isinstance(place, Url) else place.absolute()


def _files(text: str) -> dict[Path | Url, str]:
    """Photos and tars of an input, with the names that photos have in a shard."""
    place = _located(text)
    if isinstance(place, Url):
        below = place.files(recursive=True) if text.endswith("/") else {place: Path(place.name)}
        files: dict[Path | Url, str] = {url: name.as_posix() for url, name in below.items()}
    elif place.is_dir():
        files = {p: p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    elif place.is_file():
        return {place: place.name}
    else:
        raise InputError(f"{printable(text)}: no such file")
    kinds = {EXTENSION, *IMAGE_SUFFIXES}
    return {p: name for p, name in files.items() if p.suffix.lower() in kinds}
