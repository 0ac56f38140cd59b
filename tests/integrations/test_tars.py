from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import bkcodec
from bkcodec.errors import InputError, LimitError
from bkcodec.integrations import tars
from bkcodec.integrations.tars import Shard, encode_shard, planned, samples, split_name

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
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_names_of_members() -> None:
    assert split_name("a/b.c/photo.left.png") == ("a/b.c/photo", "left.png")
    assert split_name("photo") == ("photo", "")


def test_samples_are_neighbours_of_one_key(tmp_path: Path) -> None:
    data = {"a.png": b"1", "a.cls": b"2", "b/a.png": b"3", "b/a.left.png": b"4"}
    with open(tar_of(data, tmp_path / "x.tar.gz"), "rb") as file:
        assert list(samples(file)) == [
            {"__key__": "a", "png": b"1", "cls": b"2"},
            {"__key__": "b/a", "png": b"3", "left.png": b"4"},
        ]
    for broken in (b"", b"no tar at all", Path(tmp_path / "x.tar.gz").read_bytes()[:60]):
        with pytest.raises(InputError, match="damaged tar"):
            list(samples(io.BytesIO(broken)))


def test_a_member_may_not_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "Limits", lambda: bkcodec.Limits(max_file_bytes=10))
    with (
        open(tar_of({"a.png": bytes(11)}, tmp_path / "x.tar"), "rb") as file,
        pytest.raises(LimitError, match="a.png"),
    ):
        list(samples(file))


def test_photos_of_a_shard_are_encoded_and_the_rest_is_kept(
    small: Image.Image, tmp_path: Path
) -> None:
    photo = png(small)
    members = {"a.png": photo, "a.cls": b"7", "./b.left.PNG": photo, "b.gif": photo, "c.jpg": b"x"}
    source, target = tar_of(members, tmp_path / "in.tar"), tmp_path / "out.tar"
    outcome = encode_shard(Shard(str(target), source), OPTIONS)
    contents = contents_of(target)
    assert list(contents) == ["a.bkc", "a.cls", "./b.left.bkc", "b.gif", "c.jpg"]
    assert contents["a.bkc"] == bkcodec.encode(small, OPTIONS)
    assert {k: contents[k] for k in ("a.cls", "b.gif", "c.jpg")} == {
        k: members[k] for k in ("a.cls", "b.gif", "c.jpg")
    }
    assert (outcome.photos, outcome.kept, outcome.error) == (2, 3, "")
    assert len(outcome.failures) == 1 and outcome.failures[0].startswith("c.jpg: ")
    assert outcome.bytes_before == 2 * len(photo)
    assert outcome.bytes_after == 2 * len(contents["./b.left.bkc"])
    with tarfile.open(target) as tar:
        assert {(m.mtime, m.mode, m.uid) for m in tar} == {(1234567890, 0o640, 7)}
    before = target.stat().st_mtime_ns
    assert encode_shard(Shard(str(target), source), OPTIONS).skipped
    assert target.stat().st_mtime_ns == before
    assert encode_shard(Shard(str(target), source), OPTIONS, force=True).photos == 2


def test_a_shard_is_there_whole_or_not_at_all(small: Image.Image, tmp_path: Path) -> None:
    source = Path(tar_of({"a.png": png(small), "b.png": png(small)}, tmp_path / "in.tar"))
    source.write_bytes(source.read_bytes()[:-14000])
    (tmp_path / "out").mkdir()
    outcome = encode_shard(Shard(str(tmp_path / "out" / "x.tar"), str(source)), OPTIONS)
    assert "damaged tar" in outcome.error and not os.listdir(tmp_path / "out")
    missing = encode_shard(Shard(str(tmp_path / "y.tar"), str(tmp_path / "no.tar")), OPTIONS)
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
    assert [name for shard in shards for name, _ in shard.files] == [
        "a.jpg",
        "c.png",
        "deep/b.webp",
    ]
    assert planned([str(folder / "c.png")], "s3://bucket/out", 9)[0].target == (
        "s3://bucket/out/photos-000000.tar"
    )
    with pytest.raises(InputError, match="no such file"):
        planned([str(tmp_path / "nowhere")], "out", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no photos and no tars"):
        planned([str(tmp_path / "empty")], "out", 2)
    (tmp_path / "c.png").write_bytes(b"y")
    with pytest.raises(InputError, match="there is another c.png"):
        planned([str(folder), str(tmp_path / "c.png")], "out", 2)


def test_two_photos_of_one_sample_stay_two(small: Image.Image, tmp_path: Path) -> None:
    photo = png(small)
    source = tar_of({"a.png": photo, "a.jpg": photo}, tmp_path / "in.tar")
    outcome = encode_shard(Shard(str(tmp_path / "out.tar"), source), OPTIONS)
    assert list(contents_of(tmp_path / "out.tar")) == ["a.bkc", "a.jpg"]
    assert (outcome.photos, outcome.kept) == (1, 1)
