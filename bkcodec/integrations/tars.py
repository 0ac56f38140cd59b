"""Tar shards of photos to tar shards of .bkc files, one after the other; and their samples."""

from __future__ import annotations

import io
import logging
import shutil
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bkcodec.codec import Codec
from bkcodec.errors import BkcError, InputError, LimitError, first_line
from bkcodec.files import IMAGE_SUFFIXES, printable, read_whole, write_whole
from bkcodec.options import EncodeOptions, Limits
from bkcodec.remote import Url, located
from bkcodec.shards.conversion import Conversion, Failure, Tally, convert
from bkcodec.shards.members import Shard, open_shard
from bkcodec.shards.names import renaming, sample_of

EXTENSION = ".tar"
PHOTOS = ("jpg", "jpeg", "png", "webp")  # of a tar's members
_IN_MEMORY = 2**27  # bytes of a shard that wait in memory until it is complete
log = logging.getLogger(__name__)


def samples(path: Path | Url) -> Iterator[dict[str, Any]]:
    """The samples of a shard: bytes by extension, and what they share of their name as ``__key__``.

    Raises:
        InputError: a shard that cannot be read, or is damaged.
        LimitError: a member that is longer than any photo may be.
    """
    sample: dict[str, Any] = {}
    limit = Limits().max_file_bytes
    with open_shard(path) as file:
        for member in (shard := Shard(file)):
            if member.problem is not None or member.is_folder:
                continue
            if member.size > limit:
                raise LimitError(f"{printable(member.name)}: larger than {limit} bytes")
            key = sample_of(member.name)
            if sample and sample["__key__"] != key:
                yield sample
                sample = {}
            sample["__key__"] = key
            sample[member.name[len(key) + 1 :]] = shard.read()[: member.size]
    if sample:
        yield sample


@dataclass(frozen=True, slots=True)
class Order:
    """One shard to make.

    Attributes:
        target: path or URL of the tar to write.
        source: path or URL of the tar to encode, or None for single photos.
        photos: their names in the shard, and their paths or URLs.
    """

    target: str
    source: str | None = None
    photos: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a shard.

    Attributes:
        shard: path or URL of the tar.
        members: how many it has.
        converted: photos that were encoded.
        failures: which members failed, and why; they are there as they were.
        bytes_before: of the tar, or of the photos.
        bytes_after: of the tar that was written.
        seconds: that it took.
        skipped: whether the shard was there already.
        error: why there is no such shard, or "".
    """

    shard: str
    members: int = 0
    converted: int = 0
    failures: list[str] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0
    skipped: bool = False
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As a row."""
        return asdict(self)


def encode_shard(order: Order, options: EncodeOptions, force: bool = False) -> Outcome:
    """Make a shard of .bkc files, which is there whole or not at all.

    The same order gives the same bytes wherever and whenever it is carried out; those of a tar are
    what ``bkcodec encode`` makes of it. What fails is in the outcome.
    """
    outcome, target, started = Outcome(order.target), located(order.target), time.perf_counter()
    try:
        if target.exists() and not force:
            outcome.skipped = True
            return outcome
        codec = Codec(options.model, options.device, options.needed_backbone)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            tally = _written(order, spool, codec, options)  # type: ignore[arg-type]
            outcome.bytes_after = spool.tell()
            spool.seek(0)
            write_whole(target, lambda file: shutil.copyfileobj(spool, file), force)
    except (BkcError, OSError) as error:
        return Outcome(order.target, error=first_line(error))
    outcome.members, outcome.converted = tally.members, tally.converted
    outcome.bytes_before = tally.bytes_before
    outcome.failures = [f"{failure.member}: {failure.reason}" for failure in tally.failures]
    for line in outcome.failures:
        log.warning("%s: %s", order.target, printable(line))
    outcome.seconds = time.perf_counter() - started
    return outcome


def _written(order: Order, file: BinaryIO, codec: Codec, options: EncodeOptions) -> Tally:
    """Write what an order asks for into a file."""
    if order.source is None:
        return _packed(order.photos, file, codec, options)
    with open_shard(located(order.source)) as source:
        conversion = Conversion(
            renaming(PHOTOS, "bkc"),
            lambda data: codec.encode(data, options),
            Limits().max_file_bytes,
        )
        return convert(source, file, conversion)


def _packed(
    photos: tuple[tuple[str, str], ...], file: BinaryIO, codec: Codec, options: EncodeOptions
) -> Tally:
    """Write single photos into a tar: encoded, or as they are where that fails."""
    tally = Tally(members=len(photos))
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, place in photos:
            data = read_whole(located(place), Limits().max_file_bytes)
            tally.bytes_before += len(data)
            try:
                data, name = codec.encode(data, options), name.rpartition(".")[0] + ".bkc"
                tally.converted += 1
            except BkcError as error:
                tally.failures.append(Failure(name, first_line(error)))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return tally


def planned(inputs: list[str], out: str, photos_per_shard: int) -> list[Order]:
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
    shards = [Order(str(folder / Path(name)), place) for name, place in sorted(tars.items())]
    stems = Counter(name.rpartition(".")[0] for name, _ in files)
    if stems and max(stems.values()) > 1:
        stem = max(stems, key=lambda name: stems[name])
        raise InputError(f"there are {stems[stem]} photos called {printable(stem)}")
    for begin in range(0, len(files), photos_per_shard):
        name = f"photos-{begin // photos_per_shard:06d}{EXTENSION}"
        part = tuple(files[begin : begin + photos_per_shard])
        shards.append(Order(str(folder / Path(name)), photos=part))
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
