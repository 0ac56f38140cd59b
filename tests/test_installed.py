"""Bundles that the user installs: found by name and by fingerprint, like those that ship."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diffusers_models import save_bk_sdm
from PIL import Image

import bkcodec
import bkcodec.pillow_plugin
from bkcodec import backbones
from bkcodec import bundle as bundle_module
from bkcodec.bundle import (
    find_bundle,
    find_fingerprint,
    installed_bundles,
    installed_folder,
    load_bundle,
    save_bundle,
)
from bkcodec.errors import UnsupportedError
from bkcodec.installed import install


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BKCODEC_HOME", str(tmp_path / "home"))


def variant(path: Path, shift: float = 0.05, **header: object) -> Path:
    """lite with other quantisation steps, so that it has a fingerprint of its own."""
    lite = load_bundle(find_bundle("lite"))
    steps = lite.networks["quantiser.log_step"]
    networks = dict(lite.networks) | {"quantiser.log_step": steps + np.float16(shift)}
    content = lite.header | {"name": "own", **header}
    save_bundle(path, content, networks, lite.prior, lite.integers)
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return variant(tmp_path / "mine.safetensors")


def test_an_installed_bundle_is_found_like_a_shipped_one(
    run: Callable[..., int],
    own: Path,
    small: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small.save(tmp_path / "a.png")
    file, back = tmp_path / "a.bkc", tmp_path / "back.png"
    assert run("encode", tmp_path / "a.png", "-m", own, "-o", file) == 0
    assert run("decode", file, "-o", back) == 5
    assert "bkcodec models add" in capsys.readouterr().err

    assert run("models", "add", own) == 0
    own.unlink()  # there is a copy
    (bundle,) = installed_bundles()
    assert bundle.name == "own" and bundle.path.parent == installed_folder()
    assert capsys.readouterr().out.split() == [bundle.sha256, str(bundle.path)]
    assert run("decode", file, "-o", back) == 0
    assert run("encode", tmp_path / "a.png", "-m", "own", "-o", tmp_path / "b.bkc") == 0
    assert (tmp_path / "b.bkc").read_bytes() == file.read_bytes()
    capsys.readouterr()
    assert run("info", file, "--verify") == 0
    assert f"own ({bundle.fingerprint})" in capsys.readouterr().out
    with Image.open(io.BytesIO(file.read_bytes())) as opened, Image.open(back) as decoded:
        assert opened.tobytes() == decoded.tobytes()
    assert bkcodec.Codec("own").bundle.name == "own"

    assert run("models", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["lite", "bk-sdm", "own"]
    assert rows[2]["fingerprint"] == bundle.fingerprint
    assert rows[2]["origin"] == "installed from mine.safetensors"
    assert run("models") == 0
    assert "installed from mine.safetensors" in capsys.readouterr().out

    assert run("models", "remove", "own") == 0
    assert not list(installed_folder().iterdir())
    assert run("decode", file, "-o", tmp_path / "gone.png") == 5
    assert run("models", "remove", "own") == 3
    assert run("models", "remove", "lite") == 2


def test_what_is_there_already(
    run: Callable[..., int], own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(code: int, *arguments: object) -> str:
        assert run("models", "add", *arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert run("models", "add", own) == 0
    mark = installed_bundles()[0].fingerprint
    assert f"own has the fingerprint {mark} already (the same file)" in refused(3, own)
    assert "(the same file)" in refused(3, own, "--name", "other")
    twin = variant(tmp_path / "twin.safetensors", licence="of another kind")
    assert "files would not say which" in refused(3, twin, "--name", "twin")
    assert "lite has the fingerprint" in refused(3, find_bundle("lite"), "--name", "again")
    other = variant(tmp_path / "other.safetensors", shift=0.1)
    assert "the name own is taken" in refused(3, other)
    assert "the name lite is taken" in refused(3, other, "--name", "lite")
    folder = save_bk_sdm(tmp_path / "bk-sdm")
    assert "the name own is that of a bundle" in refused(3, folder, "--name", "own")
    assert "a bundle that comes with bkcodec" in refused(3, folder, "--name", "lite")
    assert run("models", "add", folder, "--name", "parts") == 0
    assert "the name parts is taken" in refused(3, other, "--name", "parts")
    assert run("models", "add", other, "--name", "parts-2") == 0
    assert [b.name for b in installed_bundles()] == ["own", "parts-2"]
    assert run("models", "remove", "parts") == 0 and not backbones.registered()


def test_what_cannot_be_installed(
    run: Callable[..., int], own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, torn = load_bundle(own), tmp_path / "torn.safetensors"
    integers = {k: v for k, v in whole.integers.items() if k != "vae.decoder.head.weight"}
    save_bundle(torn, whole.header, whole.networks, whole.prior, integers)
    for path, code, text in (
        (tmp_path / "none.safetensors", 3, "no such file"),
        (Path(__file__), 5, "not a bkcodec bundle"),
        (tmp_path, 2, "--name is needed for a directory"),
        (variant(tmp_path / "odd.safetensors", name="../odd"), 2, "--name gives another"),
        (torn, 5, "networks do not fit"),
    ):
        assert run("models", "add", path) == code
        assert text in capsys.readouterr().err
    assert run("models", "add", own, "--name", "a/b") == 2
    assert not installed_folder().exists()


def test_a_copy_that_was_changed_is_refused(own: Path) -> None:
    path = install(own, "mine").path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bundle_module._load.cache_clear()
    with pytest.raises(UnsupportedError, match="SHA-256 is not what was recorded"):
        load_bundle(find_bundle("mine"))


def test_a_copy_that_was_changed_is_refused_behind_a_link(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(own, None)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for home in (tmp_path / "link", tmp_path / "home" / ".." / "home"):
        monkeypatch.setenv("BKCODEC_HOME", str(home))
        (path,) = installed_folder().glob("*.safetensors")
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        with pytest.raises(UnsupportedError, match="SHA-256"):
            load_bundle(path)
        data[-5] ^= 1
        path.write_bytes(data)
        load_bundle(path)


def test_a_damaged_record_is_named_and_stops_no_one_else(own: Path) -> None:
    install(own)
    (installed_folder() / "own.json").write_text("[" * 100_000)
    for look in (installed_bundles, lambda: find_bundle("own"), lambda: find_fingerprint(b"1234")):
        with pytest.raises(UnsupportedError, match=r"own\.json: damaged"):
            look()
    assert find_bundle("lite").name == "lite.safetensors"
    assert find_bundle(str(own)) == own


def test_a_name_means_what_is_installed(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a file that happens to be called the same."""
    path = install(own).path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").write_bytes(b"something else")
    assert find_bundle("own") == path
    assert find_bundle(f".{os.sep}own") == Path("own")


def test_one_of_several_at_the_same_time_installs(own: Path) -> None:
    command = [sys.executable, "-m", "bkcodec", "models", "add", own, "--name"]
    processes = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for name in ("one", "two", "three")
    ]
    for process in processes:
        process.communicate()
    assert sorted(process.returncode for process in processes) == [0, 3, 3]
    assert len(installed_bundles()) == 1
