"""URLs as inputs and outputs, in a store in memory that fsspec brings."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from bkcodec.errors import BkcError, InputError, UnsupportedError
from bkcodec.files import read_whole, write_whole
from bkcodec.integrations.tars import samples
from bkcodec.remote import Url, is_url, located, without_file

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


class Broken(fsspec.AbstractFileSystem):  # type: ignore[misc, name-defined]
    """A store whose library has errors of its own."""

    protocol = "broken"

    def info(self, path: str, **_: object) -> object:
        raise PermissionError("no key")

    def _open(self, path: str, mode: str = "rb", **_: object) -> object:
        raise RuntimeError("connection lost\nand more")


fsspec.register_implementation("broken", Broken)


@pytest.fixture
def store(small: Image.Image) -> Iterator[dict[str, bytes]]:
    """Names to bytes; in it photos/a.png, photos/deep/b.png and photos/notes.txt."""
    memory = fsspec.filesystem("memory")
    out = io.BytesIO()
    small.save(out, "PNG")
    for name in ("a.png", "deep/b.png", "notes.txt"):
        memory.pipe_file(f"/photos/{name}", out.getvalue())
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def stored(memory: object) -> list[str]:
    return sorted(memory.store)  # type: ignore[attr-defined]


def test_urls_and_paths() -> None:
    assert is_url("s3://bucket/a.png") and is_url("memory://a")
    assert not is_url("C://a.png") and not is_url("a/b://c") and not is_url("photo.png")
    assert located("s3://bucket/a.png") == Url("s3://bucket/a.png")
    assert located("a.png") == Path("a.png")
    assert without_file("file:///tmp/a%20b.png") == "/tmp/a b.png"
    assert without_file("file://localhost/a.png") == "/a.png"
    with pytest.raises(InputError, match="file:///"):
        without_file("file://elsewhere/a.png")


def test_names_of_urls() -> None:
    assert Url("s3://bucket/a/b#1?.png").name == "b#1?.png"
    assert Url("https://host/a/b.png?size=2#top").name == "b.png"
    assert Url("s3://bucket/a/b.png").suffix == ".png"
    assert str(Url("s3://bucket/a/b.png").with_name("c.bkc")) == "s3://bucket/a/c.bkc"
    assert str(Url("s3://bucket/") / Path("a/b")) == "s3://bucket/a/b"


def test_read_and_write_whole(store: object) -> None:
    url = Url("memory://new/file")
    write_whole(url, b"one")
    with pytest.raises(InputError, match="exists already"):
        write_whole(url, b"two")
    assert read_whole(url, 10) == b"one"
    write_whole(url, lambda file: file.write(b"three"), force=True)
    assert read_whole(url, 10) == b"three" and url.n_bytes() == 5

    def fail(file: object) -> None:
        file.write(b"fo")  # type: ignore[attr-defined]
        raise BkcError("no more")

    with pytest.raises(BkcError, match="no more"):
        write_whole(url, fail, force=True)
    assert read_whole(url, 10) == b"three"
    with pytest.raises(BkcError, match="larger than the limit"):
        read_whole(url, 4)


def test_errors_of_stores_are_ours() -> None:
    with pytest.raises(InputError, match=r"^no such file$"):
        read_whole(Url("memory://missing"), 10)
    with pytest.raises(InputError, match=r"RuntimeError: connection lost$"):
        read_whole(Url("broken://a"), 10)
    with pytest.raises(BkcError, match="cannot be written: RuntimeError"):
        write_whole(Url("broken://a"), b"data", force=True)
    with pytest.raises(BkcError, match="broken://a: cannot be reached: no key"):
        Url("broken://a").n_bytes()
    with pytest.raises(InputError, match="Protocol not known"):
        read_whole(Url("nonsense://a"), 10)


def test_what_is_missing_is_named(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_s3fs(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", no_s3fs)
    with pytest.raises(UnsupportedError, match="^s3://a/b: Install s3fs"):
        Url("s3://a/b").n_bytes()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert run("info", "s3://bucket/a.bkc") == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "s3://bucket/a.bkc" in line and "'.[remote]'" in line


def test_the_commands_take_urls(
    run: Callable[..., int], store: object, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("encode", "memory://photos/a.png", "-q", 20, "--verify") == 0
    assert "/photos/a.bkc" in stored(store)
    assert run("encode", "one.png", "-q", 20) == 0
    assert read_whole(Url("memory://photos/a.bkc"), 10**6) == Path("one.bkc").read_bytes()
    assert run("encode", "memory://photos/a.png") == 3
    assert "exists already; --force" in capsys.readouterr().err
    assert run("encode", "memory://photos/a.png", "--skip-existing") == 0
    assert run("info", "memory://photos/a.bkc", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["quality"] == 20
    assert run("decode", "memory://photos/a.bkc", "-o", "memory://out/picture.png") == 0
    assert run("decode", "one.bkc", "-o", "here.png") == 0
    assert read_whole(Url("memory://out/picture.png"), 10**6) == Path("here.png").read_bytes()
    assert run("decode", "memory://photos/missing.bkc", "-o", "x.png") == 3
    assert not Path("x.png").exists()


def test_folders_of_stores(
    run: Callable[..., int], store: object, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("encode", "memory://photos/", "-r", "-o", "memory://small/", "-q", 5) == 0
    assert [n for n in stored(store) if "small" in n] == ["/small/a.bkc", "/small/deep/b.bkc"]
    assert run("decode", "memory://small/", "-o", "out/") == 0
    assert [str(p) for p in Path("out").rglob("*")] == ["out/a.png"]
    assert run("encode", ".", "-o", "memory://flat/", "-q", 5, "--json") == 0
    assert {"/flat/one.bkc", "/flat/two.bkc"} <= set(stored(store))
    assert run("encode", "memory://nowhere/", "-o", "out/") == 3
    assert run("encode", "memory://photos/a.png", "--keep-mtime", "-f") == 2
    assert "--keep-mtime needs files" in capsys.readouterr().err
    assert run("encode", "memory://photos/a.png", "-o", "memory://photos/a.png", "-f") == 2


def test_urls_of_files(run: Callable[..., int], here: Path) -> None:
    (here / "a folder").mkdir()
    (here / "one.png").rename(here / "a folder" / "one.png")
    folder = (here / "a folder").as_uri()
    assert run("encode", f"{folder}/one.png", "-o", folder) == 0
    assert run("info", f"{folder}/one.bkc") == 0
    assert run("decode", folder, "-o", f"{here.as_uri()}/out/") == 0
    assert (here / "out" / "one.png").is_file()
    assert run("encode", f"{folder}/one.png") == 3


def test_view_takes_urls(run: Callable[..., int], store: object, here: Path) -> None:
    assert run("encode", "one.png", "-o", "memory://photos/one.bkc") == 0
    assert run("view", "memory://photos/one.bkc") == 0
    assert "/photos/one.html" in stored(store)
    assert run("view", "memory://photos/one.bkc") == 3


def test_tar_shards_in_stores(run: Callable[..., int], store: object, here: Path) -> None:
    with tarfile.open("shard-0.tar", "w") as tar:
        tar.add("one.png")
        tar.add("two.png")
    store.pipe_file("/in/shard-0.tar", Path("shard-0.tar").read_bytes())  # type: ignore[attr-defined]
    assert run("encode", "memory://in/shard-{0..0}.tar", "-o", "memory://out/", "-q", 5) == 0
    assert run("encode", "shard-0.tar", "-o", "out/", "-q", 5) == 0
    written = read_whole(Url("memory://out/shard-0.tar"), 10**6)
    assert written == Path("out/shard-0.tar").read_bytes()
    assert [s["__key__"] for s in samples(Url("memory://out/shard-0.tar"))] == ["one", "two"]
    Path("broken.tar").write_bytes(b"x" * 2000)
    assert run("encode", "--tar", "memory://in/", "-o", "memory://other/", "-q", 5) == 0
    assert run("encode", "broken.tar", "-o", "memory://other/") != 0
    assert "/other/broken.tar" not in stored(store)
