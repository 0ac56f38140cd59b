from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import bkcodec
from bkcodec.errors import InputError, LimitError
from bkcodec.integrations import tars
from bkcodec.integrations.tars import Order, encode_shard, planned, samples

OPTIONS = bkcodec.EncodeOptions(quality=20)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def tar_of(contents: dict[str, bytes], path: Path) -> str:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode, member.uid = len(data), 1234567890, 0o640, 7
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return str(path)


def contents_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def test_samples_are_neighbours_of_one_key(tmp_path: Path) -> None:
    data = {"a.png": b"1", "a.cls": b"2", "b.c/a.png": b"3", "b.c/a.left.png": b"4", "d": b"5"}
    path = Path(tar_of(data, tmp_path / "x.tar.gz"))
    assert list(samples(path)) == [
        {"__key__": "a", "png": b"1", "cls": b"2"},
        {"__key__": "b.c/a", "png": b"3", "left.png": b"4"},
        {"__key__": "d", "": b"5"},
    ]
    for broken in (b"", b"no tar at all", path.read_bytes()[:60]):
        path.write_bytes(broken)
        with pytest.raises(InputError):
            list(samples(path))


def test_a_member_may_not_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "Limits", lambda: bkcodec.Limits(max_file_bytes=10))
    with pytest.raises(LimitError, match="a.png"):
        list(samples(Path(tar_of({"a.png": bytes(11)}, tmp_path / "x.tar"))))


def test_photos_of_a_shard_are_encoded_as_by_the_command(
    small: Image.Image, tmp_path: Path, run: Callable[..., int]
) -> None:
    photo = png(small)
    members = {"a.png": photo, "a.cls": b"7", "./b.left.PNG": photo, "b.gif": photo, "c.jpg": b"x"}
    source, target = tar_of(members, tmp_path / "in.tar"), tmp_path / "out.tar"
    outcome = encode_shard(Order(str(target), source), OPTIONS)
    contents = contents_of(target)
    assert list(contents) == ["a.bkc", "a.cls", "./b.left.bkc", "b.gif", "c.jpg"]
    assert contents["a.bkc"] == contents["./b.left.bkc"] == bkcodec.encode(small, OPTIONS)
    assert contents["a.cls"] == b"7" and contents["b.gif"] == photo and contents["c.jpg"] == b"x"
    assert (outcome.members, outcome.converted, outcome.error) == (6, 2, "")
    assert [line.split(":")[0] for line in outcome.failures] == ["c.jpg", "link.png"]
    assert outcome.bytes_before == Path(source).stat().st_size
    assert outcome.bytes_after == target.stat().st_size and outcome.seconds > 0
    assert run("encode", source, "-q", 20, "-o", tmp_path / "command.tar") == 1
    assert (tmp_path / "command.tar").read_bytes() == target.read_bytes()
    before = target.stat().st_mtime_ns
    assert encode_shard(Order(str(target), source), OPTIONS).skipped
    assert target.stat().st_mtime_ns == before
    assert encode_shard(Order(str(target), source), OPTIONS, force=True).converted == 2


def test_single_photos_become_a_shard(small: Image.Image, tmp_path: Path) -> None:
    small.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no photo")
    photos = (("x/a.v2.png", str(tmp_path / "a.png")), ("b.png", str(tmp_path / "b.png")))
    outcome = encode_shard(Order(str(tmp_path / "out.tar"), photos=photos), OPTIONS)
    expected = {"x/a.v2.bkc": bkcodec.encode(small, OPTIONS), "b.png": b"no photo"}
    assert contents_of(tmp_path / "out.tar") == expected
    assert (outcome.members, outcome.converted, len(outcome.failures)) == (2, 1, 1)
    assert outcome.bytes_after == (tmp_path / "out.tar").stat().st_size


def test_a_shard_is_there_whole_or_not_at_all(small: Image.Image, tmp_path: Path) -> None:
    source = Path(tar_of({"a.png": png(small), "b.png": png(small)}, tmp_path / "in.tar"))
    source.write_bytes(source.read_bytes()[:-14000])
    (tmp_path / "out").mkdir()
    outcome = encode_shard(Order(str(tmp_path / "out" / "x.tar"), str(source)), OPTIONS)
    assert "the tar file is cut" in outcome.error and not os.listdir(tmp_path / "out")
    missing = encode_shard(Order(str(tmp_path / "y.tar"), str(tmp_path / "no.tar")), OPTIONS)
    assert missing.error and not (tmp_path / "y.tar").exists()


def test_what_becomes_which_shard(small: Image.Image, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("c.png", "a.jpg", "deep/b.webp", "notes.txt"):
        (folder / name).write_bytes(b"x")
    tar_of({}, folder / "more.tar")
    shards = planned([str(folder)], "out", 2)
    names = ("more.tar", "photos-000000.tar", "photos-000001.tar")
    assert [shard.target for shard in shards] == [str(Path.cwd() / "out" / n) for n in names]
    assert shards[0].source == str(folder / "more.tar")
    assert [name for shard in shards for name, _ in shard.photos] == [
        "a.jpg",
        "c.png",
        "deep/b.webp",
    ]
    assert planned([str(folder / "c.png")], "s3://bucket/out", 9)[0].target == (
        "s3://bucket/out/photos-000000.tar"
    )
    with pytest.raises(InputError, match="no such file"):
        planned([str(tmp_path / "nowhere")], "out", 2)
    (folder / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match="2 photos called a$"):
        planned([str(folder)], "out", 2)
    (folder / "a.png").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no photos and no tars"):
        planned([str(tmp_path / "empty")], "out", 2)
    (tmp_path / "c.png").write_bytes(b"y")
    with pytest.raises(InputError, match="there is another c.png"):
        planned([str(folder), str(tmp_path / "c.png")], "out", 2)
