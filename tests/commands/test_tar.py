"""Tar shards on the command line: there and back, pipes, resuming, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import fresh, names
from PIL import Image

from bkcodec.codec import Codec
from bkcodec.commands import tar as tar_command

Run = Callable[..., int]
BAD = b"\xff\xd8\xff not a photo"


def picture(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write(path: str, members: dict[str, bytes], format_: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=format_) as archive:
        for i, (name, data) in enumerate(members.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), 1_700_000_000 + i, 0o640
            archive.addfile(member, io.BytesIO(data))


def read(path: str | Path | io.BytesIO) -> dict[str, bytes]:
    file = path if isinstance(path, io.BytesIO) else io.BytesIO(Path(path).read_bytes())
    with tarfile.open(fileobj=file, mode="r|") as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


@pytest.fixture
def members(small: Image.Image) -> dict[str, bytes]:
    grey = small.crop((0, 0, 50, 40)).convert("L")
    return {
        "a.jpg": picture(small, "JPEG"),
        "a.json": b'{"caption": "a lake"}',
        "a.cam1.PNG": picture(grey, "PNG"),
        "b.webp": picture(grey.convert("RGB"), "WEBP"),
        "b.cls": b"7",
        "c.txt": b"no picture",
    }


@pytest.fixture
def shard(here: Path, members: dict[str, bytes]) -> Path:
    write("shard-0.tar", members)
    return here / "shard-0.tar"


def test_there_and_back(
    run: Run, shard: Path, members: dict[str, bytes], codec: Codec, small: Image.Image
) -> None:
    assert run("encode", "shard-0.tar", "-o", "out/") == 0
    assert names(shard.parent / "out") == ["shard-0.tar"]
    coded = read("out/shard-0.tar")
    assert list(coded) == ["a.bkc", "a.json", "a.cam1.bkc", "b.bkc", "b.cls", "c.txt"]
    with Image.open(io.BytesIO(members["a.jpg"])) as photo:
        assert coded["a.bkc"] == codec.encode(photo)
    assert run("decode", "out/shard-0.tar", "-o", "back/", "--format", "png") == 0
    back = read("back/shard-0.tar")
    assert list(back) == ["a.png", "a.json", "a.cam1.png", "b.png", "b.cls", "c.txt"]
    assert all(back[name] == members[name] for name in ("a.json", "b.cls", "c.txt"))
    with Image.open(io.BytesIO(back["a.png"])) as image:
        assert image.size == small.size
        assert image.tobytes() == codec.decode(coded["a.bkc"]).tobytes()


def test_every_other_member_is_identical(run: Run, here: Path, members: dict[str, bytes]) -> None:
    def others(path: str) -> list[tuple[object, ...]]:
        with tarfile.open(path) as archive:
            return [
                (m.name, m.mode, m.mtime, hashlib.sha256(archive.extractfile(m).read()).digest())  # type: ignore[union-attr]
                for m in archive
                if m.name.endswith((".json", ".cls", ".txt"))
            ]

    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        write("s.tar", members, format_)
        assert run("encode", "s.tar", "-o", "out.tar", "-f") == 0
        assert run("decode", "out.tar", "-o", "back.tar", "-f", "--format", "webp") == 0
        assert others("s.tar") == others("out.tar") == others("back.tar")


def test_pipes(shard: Path, members: dict[str, bytes]) -> None:
    program = f"{sys.executable} -m bkcodec"
    assert (
        fresh("encode", "shard-0.tar", "-o", "file.tar", "-q", 20, cwd=shard.parent).returncode == 0
    )
    encode = f"cat shard-0.tar | {program} encode - --tar -o - -q 20"
    done = subprocess.run(encode, shell=True, capture_output=True, check=True)
    assert done.stdout == Path("file.tar").read_bytes()
    both = f"{encode} | {program} decode - --tar -o - --format jpg"
    done = subprocess.run(both, shell=True, capture_output=True, check=True)
    assert list(read(io.BytesIO(done.stdout)))[::3] == ["a.jpg", "b.jpg"]
    assert b"3 converted" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_gets_the_beginning_at_once(unbuffered: str, here: Path) -> None:
    """Nothing waits for the end of a shard: what is finished goes out."""
    write("large.tar", {"a.bin": os.urandom(2**21)})
    begin = Path("large.tar").read_bytes()[: 2**20]
    with subprocess.Popen(
        [sys.executable, "-m", "bkcodec", "encode", "-", "--tar", "-o", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        watch = threading.Timer(60, process.kill)
        watch.start()
        threading.Thread(target=process.stdin.write, args=[begin]).start()
        came = b""
        while len(came) < 2**19 and (data := process.stdout.read(2**19)):
            came += data
        assert begin.startswith(came) and len(came) >= 2**19  # while half of the member is missing
        watch.cancel()
        process.kill()


def test_failures_are_listed(
    run: Run, here: Path, members: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    write("s.tar", members | {"d.jpg": BAD, "d.txt": b"d"})
    assert run("encode", "s.tar", "-o", "out/") == 1
    assert read("out/s.tar")["d.jpg"] == BAD and len(read("out/s.tar")) == 8
    (row,) = json.loads(Path("out/s.errors.json").read_text())
    assert row["member"] == "d.jpg" and "not an image" in row["error"]
    line, error = capsys.readouterr().err.splitlines()
    assert "8 members   3 converted   1 failed" in line
    assert error == "bkcodec: error: s.tar: 1 of 8 members failed; out/s.errors.json lists them"
    assert run("encode", "s.tar", "-o", "out/", "-f", "--drop-failed") == 1
    assert "d.jpg" not in read("out/s.tar") and "d.txt" in read("out/s.tar")
    write("s.tar", members)
    assert run("encode", "s.tar", "-o", "out/", "-f") == 0
    assert names(here / "out") == ["s.tar"]


def test_failures_on_a_pipe_are_lines(here: Path, members: dict[str, bytes]) -> None:
    write("s.tar", {"z.jpg": BAD, "../b.txt": b"b"} | members)
    done = fresh("encode", "s.tar", "-o", "-", "--quiet", cwd=here)
    assert done.returncode == 1
    errors = done.stderr.decode().splitlines()
    assert [line.split(": ")[2:4] for line in errors[:2]] == [
        ["s.tar", "z.jpg"],
        ["s.tar", "../b.txt"],
    ]
    assert read(io.BytesIO(done.stdout))["z.jpg"] == BAD


def test_a_pattern_names_what_is_missing(
    run: Run, here: Path, members: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (8, 10):
        write(f"s-{number:03}.tar", members)
    assert run("encode", "s-{008..010}.tar", "-o", "out/", "--json") == 1
    assert names(here / "out") == ["s-008.tar", "s-010.tar"]
    shown = capsys.readouterr()
    assert "s-009.tar: cannot be read: No such file" in shown.err
    *rows, last = [json.loads(line) for line in shown.out.splitlines()]
    assert [row.get("converted") for row in rows] == [3, None, 3]
    assert last["summary"]["of_members"] == {"members": 12, "converted": 6, "failed": 0}
    assert last["summary"]["failed"] == 1
    size = sum(path.stat().st_size for path in here.glob("out/*.tar"))
    assert last["summary"]["bytes_after"] == size


def test_finished_shards_are_skipped(
    run: Run,
    shard: Path,
    members: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("shard-1.tar", members)
    assert run("encode", "shard-0.tar", "-o", "out/") == 0
    assert run("encode", "shard-0.tar", "-o", "out/") == 3
    assert "exists already" in capsys.readouterr().err
    calls, convert = [], tar_command.convert
    monkeypatch.setattr(tar_command, "convert", lambda *a: calls.append(a) or convert(*a))
    assert run("encode", "shard-{0..1}.tar", "-o", "out/", "--skip-existing") == 0
    assert len(calls) == 1 and "1 skipped" in capsys.readouterr().err
    assert Path("out/shard-0.tar").read_bytes() == Path("out/shard-1.tar").read_bytes()


def test_a_shard_that_fails_leaves_nothing(
    run: Run, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard.write_bytes(shard.read_bytes()[:3000])
    assert run("encode", "shard-0.tar", "-o", "out/") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bkcodec: error: shard-0.tar: the tar file is cut: ")
    assert names(shard.parent / "out") == []


def test_what_is_not_a_tar_file(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.tar").write_bytes(Path("one.png").read_bytes())
    assert run("encode", "s.tar", "-o", "out/") == 3
    assert capsys.readouterr().err == "bkcodec: error: s.tar: not a tar file\n"


def test_nothing_is_written_elsewhere(run: Run, here: Path, members: dict[str, bytes]) -> None:
    (here / "work").mkdir()
    evil = {f"{here}/evil.jpg": members["a.jpg"], "../../evil.png": members["a.cam1.PNG"]}
    write("work/s.tar", evil | members)
    before = names(here)
    assert run("encode", "work/s.tar", "-o", "work/out/", "--drop-failed") == 1
    assert set(names(here)) - set(before) == {"work/out/s.tar", "work/out/s.errors.json"}
    assert len(read("work/out/s.tar")) == len(members)


def test_jobs_give_the_same_bytes(run: Run, shard: Path) -> None:
    for jobs in (1, 2, 0):
        assert run("encode", "shard-0.tar", "-o", f"{jobs}.tar", "-j", jobs) == 0
    assert Path("0.tar").read_bytes() == Path("1.tar").read_bytes() == Path("2.tar").read_bytes()


def test_options_of_encode_apply(run: Run, shard: Path, codec: Codec) -> None:
    assert (
        run("encode", "shard-0.tar", "-o", "t.tar", "--target-size", "600", "--max-side", 64) == 0
    )
    files = [data for name, data in read("t.tar").items() if name.endswith(".bkc")]
    assert len(files) == 3 and all(len(data) <= 600 for data in files)
    assert max(codec.decode(files[0]).size) == 64
    assert run("encode", "shard-0.tar", "-o", "k.tar", "--keep-extension", "--keep-mtime") == 0
    assert list(read("k.tar"))[0] == "a.jpg.bkc"
    assert Path("k.tar").stat().st_mtime_ns == shard.stat().st_mtime_ns
    assert run("encode", "shard-0.tar", "-o", "dry.tar", "--dry-run") == 0
    assert not Path("dry.tar").exists()
    assert run("encode", "shard-0.tar", "-o", "d.tar", "--target-size", "10") == 1
    errors = json.loads(Path("d.errors.json").read_text())
    assert len(errors) == 3 and "the smallest file has" in errors[0]["error"]


def test_folders(
    run: Run, here: Path, members: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("shards/deep").mkdir(parents=True)
    write("shards/0.tar", members)
    write("shards/deep/1.tar", members)
    assert run("encode", "shards", "-r", "-o", "out") == 0
    assert names(here / "out") == ["0.tar", "deep/1.tar"]
    Path("out/0.errors.json").touch()
    assert run("decode", "out", "-o", "back/") == 0
    assert "left out" not in capsys.readouterr().err
    assert names(here / "back") == ["0.tar"]
    Path("one.png").rename("shards/one.png")
    assert run("encode", "shards", "-o", "photos/") == 0
    assert names(here / "photos") == ["one.bkc"]
    assert "1 .tar; tar needs --tar" in capsys.readouterr().err
    assert run("encode", "shards", "--tar", "-o", "tars/") == 0
    assert names(here / "tars") == ["0.tar"]


def test_gzip(run: Run, shard: Path) -> None:
    subprocess.run(["gzip", "-k", "shard-0.tar"], check=True)
    assert run("encode", "shard-0.tar.gz", "-o", "out/") == 0
    assert run("encode", "shard-0.tar", "-o", "plain.tar") == 0
    assert Path("out/shard-0.tar").read_bytes() == Path("plain.tar").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "shard-0.tar"], "-o DIRECTORY/"),
        (["encode", "shard-0.tar", "-o", "shard-0.tar", "-f"], "would be overwritten"),
        (["encode", "shard-0.tar", "one.png", "-o", "out/"], "one.png is not called .tar"),
        (["encode", "shard-0.tar", "-o", "out/", "--measure"], "--measure does not apply"),
        (["encode", "shard-0.tar", "-o", "out/", "--verify"], "--verify does not apply"),
        (["encode", "one.png", "--drop-failed"], "--drop-failed applies to"),
        (["encode", "{0..9999999}.tar", "-o", "out/"], "more than 1,000,000 shards"),
        (["encode", "shard-{0..1}.tar", "-o", "x.tar"], "2 inputs need a directory"),
        (["decode", "shard-0.tar", "-o", "out/", "--jpeg-quality", "9"], "does not apply to png"),
        (["encode", "shard-0.tar", "-o", "-", "--json"], "--json does not apply"),
    ],
)
def test_usage(
    run: Run, shard: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    before = shard.read_bytes()
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bkcodec: error: ") and words in line
    assert shard.read_bytes() == before and not Path("out").exists()


def test_a_folder_is_no_photo_whatever_its_name(run: Run, here: Path) -> None:
    with tarfile.open("s.tar", "w") as archive:
        folder = tarfile.TarInfo("album.jpg")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
    assert run("encode", "s.tar", "-o", "out/") == 0
    with tarfile.open("out/s.tar") as archive:
        (member,) = archive
        assert member.isdir() and member.name == "album.jpg"
