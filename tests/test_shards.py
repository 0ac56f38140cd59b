"""Tar shards without a codec: what changes, what stays, and what is refused."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import tarfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bkcodec.errors import BkcError, InputError, UsageError
from bkcodec.shards.conversion import SMALL, Conversion, Tally, convert
from bkcodec.shards.members import open_shard
from bkcodec.shards.names import renaming, sample_of, shard_names

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
TO_BKC = renaming(("jpg", "jpeg", "png", "webp"), "bkc")
Entry = tuple[str, bytes]


def reverse(data: bytes) -> bytes:
    if data.startswith(b"bad"):
        raise InputError("no picture")
    return data[::-1]


def conversion(**changes: object) -> Conversion:
    fields = {"renamed": TO_BKC, "change": reverse, "max_bytes": 1000}
    return Conversion(**(fields | changes))  # type: ignore[arg-type]


def converted(data: bytes, **changes: object) -> tuple[bytes, Tally]:
    out = io.BytesIO()
    tally = convert(io.BytesIO(data), out, conversion(**changes))
    return out.getvalue(), tally


def info(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, 1_700_000_000, 0o640
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def tar(entries: list[Entry], format_: int = tarfile.PAX_FORMAT, **fields: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        for name, data in entries:
            archive.addfile(info(name, len(data), **fields), io.BytesIO(data))
    return file.getvalue()


def raw(*members: tarfile.TarInfo) -> bytes:
    """Headers without content, and an end."""
    blocks = b"".join(member.tobuf(tarfile.GNU_FORMAT) for member in members)
    return blocks + bytes(1024)


def listed(data: bytes) -> list[tuple[object, ...]]:
    """All that other programs see of a tar file."""
    rows: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
        for m in archive:
            file = archive.extractfile(m) if m.isreg() else None
            content = file.read() if file else m.linkname.encode()
            pax = {k: v for k, v in m.pax_headers.items() if k != "path"}
            rows.append((m.name, content, m.mode, m.mtime, m.uid, m.gid, m.uname, m.type, pax))
    return rows


SAMPLES: list[Entry] = [
    ("000/a.jpg", b"abc"),
    ("000/a.json", b"{}"),
    ("000/a.cam1.PNG", b"xyz" * 200),
    ("000/b.JPeG", b""),
    ("000/b.txt", b"text" * 300),
    ("README", b"no sample"),
    ("000/c.webp.txt", b"not a picture"),
    ("000/.jpg", b"no stem"),
    ("000/._a.jpg", b"macOS"),
]
NEW = ["000/a.bkc", "000/a.json", "000/a.cam1.bkc", "000/b.bkc", *(n for n, _ in SAMPLES[4:])]


@pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)
def test_pictures_change_and_all_else_stays(format_: int) -> None:
    data = tar(SAMPLES, format_, uid=1234, gid=77, uname="someone")
    out, tally = converted(data)
    before, after = listed(data), listed(out)
    assert [row[0] for row in after] == NEW
    assert (tally.members, tally.converted, tally.failures) == (9, 3, [])
    assert (tally.bytes_before, tally.bytes_after) == (len(data), len(out))
    for old, new in zip(before, after, strict=True):
        assert new[2:] == old[2:]
        assert new[1] == (old[1] if new[0] == old[0] else bytes(old[1])[::-1])  # type: ignore[arg-type]
    back, _ = converted(out, renamed=renaming(["bkc"], "jpg"))
    assert [row[1] for row in listed(back)] == [row[1] for row in before]


@pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)
def test_without_pictures_the_file_is_the_same(format_: int) -> None:
    data = tar([(f"{i}/{'d' * 60}/{'n' * 60}.txt", bytes(i * 100)) for i in range(20)], format_)
    assert converted(data)[0] == data


def test_headers_beyond_the_usual_stay() -> None:
    long, odd = "é" * 150 + ".jpg", "caf\udce9.jpg"
    pax = {"mtime": "1700000000.123456789", "comment": "kept", "SCHILY.xattr.user.a": "b"}
    for format_ in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
            for name in (long, odd):
                member = info(name, 3, uid=2**30, pax_headers=dict(pax))
                archive.addfile(member, io.BytesIO(b"abc"))
        before = listed(file.getvalue())
        after = listed(converted(file.getvalue())[0])
        assert [row[0] for row in after] == [long[:-4] + ".bkc", odd[:-4] + ".bkc"]
        assert [row[2:] for row in after] == [row[2:] for row in before]


def test_a_name_that_outgrows_its_format() -> None:
    name = "d" * 150 + "/" + "n" * 96 + ".jpg"
    data = tar([(name, b"abc")], tarfile.USTAR_FORMAT)
    out, _ = converted(data, renamed=renaming(["jpg"], "bkc", keep_extension=True))
    assert listed(out)[0][0] == name + ".bkc"


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    rng = random.Random(1)
    entries = [(f"{i}.jpg" if i % 3 else f"{i}.txt", rng.randbytes(100)) for i in range(120)]
    entries += [("large.bin", rng.randbytes(2 * SMALL)), ("last.jpg", b"bad")]
    busy, most = set(), []

    def slow(data: bytes) -> bytes:
        busy.add(threading.get_ident())
        most.append(threading.active_count())
        time.sleep(data[0] / 50_000)
        return reverse(data)

    data = tar(entries)
    outs = [converted(data, change=slow, n_workers=n) for n in (1, 2, 7)]
    assert outs[0] == outs[1] == outs[2]
    assert len(busy) >= 7 and outs[0][1].failures[0].member == "last.jpg"


def test_a_row_of_archives_is_read_to_its_end() -> None:
    first, second = tar(SAMPLES[:2]), tar(SAMPLES[2:4])
    out, tally = converted(first + second)
    assert [row[0] for row in listed(out)] == NEW[:4] and tally.members == 4
    with pytest.raises(InputError, match="damaged at byte"):
        converted(first + b"rubbish" * 1000)


def test_pipes() -> None:
    data, parts = tar(SAMPLES), []
    (read, write), (read_back, write_back) = os.pipe(), os.pipe()

    def feed() -> None:
        with open(write, "wb") as file:
            file.write(data)

    def collect() -> None:
        with open(read_back, "rb") as file:
            parts.append(file.read())

    threads = [threading.Thread(target=feed), threading.Thread(target=collect)]
    for thread in threads:
        thread.start()
    with open(read, "rb") as source, open(write_back, "wb") as target:
        convert(source, target, conversion())
    for thread in threads:
        thread.join()
    assert parts == [converted(data)[0]]


def test_failures_are_kept_or_left_out() -> None:
    entries = [("a.jpg", b"bad"), ("a.txt", b"1"), ("b.jpg", b"x" * 1001), ("c.jpg", b"good")]
    out, tally = converted(tar(entries))
    assert [row[:2] for row in listed(out)] == [*entries[:3], ("c.bkc", b"doog")]
    reasons = [(f.member, f.reason) for f in tally.failures]
    limit = "1,001 bytes are more than the limit of 1,000 bytes"
    assert reasons == [("a.jpg", "no picture"), ("b.jpg", limit)]
    out, tally = converted(tar(entries), drop_failed=True)
    assert [row[0] for row in listed(out)] == ["a.txt", "c.bkc"]
    assert [(f.member, f.reason) for f in tally.failures] == reasons


def test_a_bug_is_a_failure_too() -> None:
    def broken(data: bytes) -> bytes:
        raise RuntimeError("a bug\nsecond line")

    _, tally = converted(tar(SAMPLES[:1]), change=broken)
    assert [f.reason for f in tally.failures] == ["unexpected RuntimeError: a bug"]


def test_a_large_failure_is_not_read() -> None:
    data = tar([("a.jpg", bytes(3 * SMALL)), ("b.jpg", b"abc")])
    assert listed(converted(data)[0])[0][1] == bytes(3 * SMALL)
    assert [row[0] for row in listed(converted(data, drop_failed=True)[0])] == ["b.bkc"]


SPARSE = info("s.jpg", type=tarfile.GNUTYPE_SPARSE)
HOSTILE = {
    "absolute": (info("/etc/a.jpg"), "leads out"),
    "parent": (info("x/../../a.txt"), "leads out"),
    "symlink": (info("a.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
    "hard link": (info("a.jpg", type=tarfile.LNKTYPE, linkname="b.jpg"), "a link"),
    "device": (info("a.jpg", type=tarfile.BLKTYPE, devmajor=8), "a device"),
    "character device": (info("a.png", type=tarfile.CHRTYPE, devmajor=8), "a device"),
    "pipe": (info("a.jpg", type=tarfile.FIFOTYPE), "a pipe"),
    "sparse": (SPARSE, "sparse"),
}


@pytest.mark.parametrize(("member", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_members_that_should_not_be_there(member: tarfile.TarInfo, reason: str) -> None:
    data = raw(info("folder", type=tarfile.DIRTYPE), member)
    out, tally = converted(data)
    assert out.rstrip(b"\0") == data.rstrip(b"\0")
    assert [f.member for f in tally.failures] == [member.name]
    assert reason in tally.failures[0].reason
    out, _ = converted(data, drop_failed=True)
    assert [row[0] for row in listed(out)] == ["folder"]


def test_sparse_members_stay_as_they_are() -> None:
    header = bytearray(info("s.jpg", 512, type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # one more block with the list of pieces
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    old = bytes(header) + b"\1" * 504 + bytes(8) + b"x" * 512
    new = tar([("p.jpg", b"pieces")], pax_headers={"GNU.sparse.major": "1"})
    out, tally = converted(old + new)
    assert out.startswith(old + new.rstrip(b"\0"))
    assert [f.member for f in tally.failures] == ["s.jpg", "p.jpg"]


def test_names_that_a_sample_has_twice() -> None:
    entries = [("a.jpg", b"1"), ("a.png", b"2"), ("a.txt", b"3"), ("a.txt", b"4"), ("b.bkc", b"5")]
    entries += [("b.jpg", b"6"), ("c.jpg", b"7"), ("a.jpg", b"8")]
    out, tally = converted(tar(entries))
    names = ["a.bkc", "a.png", "a.txt", "a.txt", "b.bkc", "b.jpg", "c.bkc", "a.bkc"]
    assert [row[0] for row in listed(out)] == names
    assert [(f.member, f.reason) for f in tally.failures] == [
        ("a.png", "its sample has a.bkc already"),
        ("a.txt", "its sample has this name twice"),
        ("b.jpg", "its sample has b.bkc already"),
    ]
    out, tally = converted(tar(entries[:2]), renamed=renaming(["jpg", "png"], "bkc", True))
    assert [row[0] for row in listed(out)] == ["a.jpg.bkc", "a.png.bkc"] and not tally.failures


def test_cut_anywhere() -> None:
    data = tar(SAMPLES[:5], tarfile.GNU_FORMAT)
    end = len(data.rstrip(b"\0"))
    end += -end % 512 + 512  # the first block of zeros
    for n_bytes in [*range(1, end, 61), end - 512, end - 1]:
        with pytest.raises(InputError, match="the tar file is cut: it ends after"):
            converted(data[:n_bytes])
    assert converted(data[:end])[0] == converted(data)[0]
    with pytest.raises(InputError, match="the input is empty"):
        converted(b"")


def extension(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    header = info("x", len(data) if size is None else size, type=kind).tobuf(tarfile.GNU_FORMAT)
    return header + data + bytes(-len(data) % 512)


PAX, GLOBAL, LONG = tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME
REFUSED = {
    "text": (b"no tar at all " * 100, "not a tar file"),
    "a picture": (b"\xff\xd8\xff" + bytes(2000), "not a tar file"),
    "huge": (raw(info("a.bin", 2**40)), "cut"),
    "huge picture": (raw(info("a.jpg", 2**40)), "cut"),
    "zeros": (tar(SAMPLES[:1]) + bytes(2**24), "nothing but zeros"),
    "negative": (raw(info("a.jpg", -5)), "a size"),
    "damaged": (tar(SAMPLES[:1])[:1024] + b"x" * 512, "damaged at byte 1,024"),
    "long name": (extension(LONG, b"", 2**40), "extension header of 1,099,511,627,776"),
    "PAX header": (extension(PAX, b"", 2**33), "extension header of"),
    "many headers": (extension(LONG, b"name") * 20, "more than 16 extension headers"),
    "no records": (extension(PAX, b"12 path=a.jp"), "a PAX header that is none"),
    "zero": (extension(PAX, b"0 path=a.jpg\n"), "a PAX header that is none"),
    "size": (extension(PAX, b"14 size=12x45\n") + raw(info("a")), "a size that is no number"),
    "digits": (extension(PAX, b"5011 size=" + b"9" * 5000 + b"\n") + raw(info("a")), "a size"),
    "for all": (extension(GLOBAL, b"14 path=a.jpg\n"), "gives all members the same name"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        converted(data)
    assert len(str(caught.value).splitlines()) == 1


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_any_damage_is_an_error_or_a_tar_file(data: st.DataObject) -> None:
    shard = bytearray(tar(SAMPLES[:4], data.draw(st.sampled_from(list(FORMATS.values())))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(shard) - 1))
        shard[at] = data.draw(st.integers(0, 255))
        block = shard[at // 512 * 512 :][:512]  # a header counts with its checksum only
        total = sum(block[:148]) + 8 * 32 + sum(block[156:])
        if data.draw(st.booleans()):
            shard[at // 512 * 512 + 148 : at // 512 * 512 + 156] = b"%06o\0 " % total
    try:
        out, tally = converted(bytes(shard))
    except BkcError:
        return
    again, _ = converted(out, renamed=lambda name: None)
    assert again == out and tally.converted <= tally.members


def test_compressed(tmp_path: Path) -> None:
    data, path = tar(SAMPLES), tmp_path / "shard.tgz"

    def read() -> tuple[bytes, Tally]:
        with open_shard(path) as file:
            return converted(file.read())

    def streamed() -> bytes:
        out = io.BytesIO()
        with open_shard(path) as file:
            convert(file, out, conversion())
        return out.getvalue()

    path.write_bytes(gzip.compress(data))
    assert read()[0] == streamed() == converted(data)[0]
    path.write_bytes(gzip.compress(data)[:-100])
    with pytest.raises(InputError, match="cut"):
        streamed()
    path.write_bytes(gzip.compress(data)[:60] + b"rubbish" * 50)
    with pytest.raises(InputError):
        streamed()
    path.write_bytes(lzma.compress(data))
    with pytest.raises(InputError, match="compressed with xz; decompress it first"):
        streamed()
    with pytest.raises(InputError, match="cannot be read"), open_shard(tmp_path):
        pass


def test_a_full_target_stops_it() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        convert(io.BytesIO(tar(SAMPLES)), Full(), conversion())


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{008..011}.tar", ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]),
        ("s-{8..10}.tar", ["s-8.tar", "s-9.tar", "s-10.tar"]),
        ("{2..1}", ["2", "1"]),
        ("{train,val}-{0..1}", ["train-0", "train-1", "val-0", "val-1"]),
        ("plain.tar", ["plain.tar"]),
        ("{a..b}", ["{a..b}"]),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    assert shard_names([pattern]) == names


def test_a_file_with_braces_is_itself(here: Path) -> None:
    Path("s-{0..1}.tar").touch()
    assert shard_names(["s-{0..1}.tar"]) == ["s-{0..1}.tar"]


@pytest.mark.parametrize("pattern", ["{0..1000000}", "{0..9999}{0..9999}", "{0..9}" * 40])
def test_patterns_without_measure(pattern: str) -> None:
    with pytest.raises(UsageError, match="more than 1,000,000 shards"):
        shard_names([pattern])


def test_samples() -> None:
    names = ["a/b.c/d.cam.png", "a/b.c/d.json", "d.x", "a/.d", "plain"]
    assert [sample_of(name) for name in names] == ["a/b.c/d", "a/b.c/d", "d", "a/.d", "plain"]
