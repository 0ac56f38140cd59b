"""Tar shards that declare more than they have, unpack to gigabytes, or lead out of their folder."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.attacks.common import LOADED, ROOT, bkcodec, only, refused

PHOTO = (ROOT / "tests" / "samples" / "grey4-transparent.png").read_bytes()
END = bytes(1024)
LARGE = 2**30 + 512  # bytes: more than a member that is converted may have


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(tarfile.GNU_FORMAT)


def photo(name: str) -> bytes:
    return header(name, len(PHOTO)) + PHOTO + bytes(-len(PHOTO) % 512)


def refusals() -> Iterator[bytes]:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        yield header("x", 2**40, kind) + bytes(2**20)
    for name in ("a.jpg", "a.bin"):
        yield header(name, 2**40) + bytes(2**20) + END
    yield header("x", 6, tarfile.GNUTYPE_LONGNAME) + b"a.jpg" + bytes(507)  # and nothing more
    yield (header("x", 6, tarfile.GNUTYPE_LONGNAME) + b"a.jpg" + bytes(507)) * 2000
    yield photo("a.png")[:-512]
    yield b"\x1f\x8b" + bytes(100)
    yield bytes(2**25)


def attack(folder: Path) -> str:
    (folder / "secret").write_bytes(b"precious")
    peak, n = 0.0, 0
    for n, data in enumerate(refusals(), 1):  # noqa: B007
        (folder / "s.tar").write_bytes(data)
        done = refused(bkcodec("encode", "s.tar", "-o", "out.tar", cwd=folder), 3)
        peak = max(peak, done.peak)
        only(folder, "secret", "s.tar")
    evil = [f"{folder}/secret", "../secret.png", "x/../../secret.png"]
    links = header("a", 0, tarfile.SYMTYPE, f"{folder}/secret") + photo("a/b.png")
    links += header("hard.png", 0, tarfile.LNKTYPE, "/etc/passwd") + header("d", 0, tarfile.BLKTYPE)
    (folder / "s.tar").write_bytes(b"".join(map(photo, evil)) + links + END)
    done = bkcodec("encode", "s.tar", "-o", "out.tar", "--drop-failed", cwd=folder)
    assert done.code == 1 and "6 of 7 members failed" in done.err, done.err
    with tarfile.open(folder / "out.tar") as archive:
        assert archive.getnames() == ["a/b.bkc"]
    only(folder, "secret", "s.tar", "out.tar", "out.errors.json")
    with gzip.open(folder / "s.tar", "wb", compresslevel=1) as file:
        file.write(header("a.jpg", LARGE))
        for _ in range(LARGE // 2**20):
            file.write(bytes(2**20))
        file.write(bytes(LARGE % 2**20) + photo("b.png") + END)
    done = bkcodec("encode", "s.tar", "-o", "out.tar", "-f", "--drop-failed", cwd=folder)
    assert done.code == 1 and "1 of 2 members failed" in done.err, done.err
    peak = max(peak, done.peak)
    assert peak < LOADED, peak
    assert (folder / "secret").read_bytes() == b"precious"
    return f"{n} shards refused with one line, 7 members by name; at most {peak:.0f} MiB in memory"
