from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from diffusers_models import save_bk_sdm

from bkcodec import backbones
from bkcodec.errors import BkcError, InputError, UnsupportedError, UsageError

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BKCODEC_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_bk_sdm(tmp_path / "bk-sdm")


def test_a_recorded_backbone_is_found_and_listed(
    run: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("models", "add", folder, "--name", "mine") == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 5 and all(len(line.split()[0]) == 64 for line in listed)
    assert backbones.find_directory("mine") == folder.resolve()
    assert run("models", "--json") == 0
    output = capsys.readouterr()
    rows = [json.loads(line) for line in output.out.splitlines()]
    assert [r["name"] for r in rows] == ["lite", "bk-sdm", "mine"]
    assert len(rows[-1]["files"]) == 5
    assert run("models") == 0
    output = capsys.readouterr()
    assert "OpenRAIL-M" in output.err and "mine" in output.out
    assert run("models", "--json", "remove", "mine") == 2
    assert run("models", "remove", "mine") == 0
    assert run("models", "remove", "mine") == 3
    with pytest.raises(UnsupportedError, match="recorded backbones: none"):
        backbones.find_directory("mine")


def test_recording_again_replaces(folder: Path) -> None:
    backbones.add(folder, "mine")
    (folder / "vae" / "config.json").write_text("{}")
    backbones.add(folder, "mine")
    assert [e.name for e in backbones.registered()] == ["mine"]
    backbones.find_directory("mine")


@pytest.mark.parametrize("change", ["altered", "missing", "new"])
def test_a_changed_file_is_refused(folder: Path, change: str) -> None:
    backbones.add(folder, "mine")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if change == "altered":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    elif change == "missing":
        path.unlink()
    else:
        (folder / "unet" / "more.safetensors").write_bytes(b"")
    with pytest.raises(UnsupportedError, match=r"backbone mine: .*unet/"):
        backbones.find_directory("mine")
    (folder / "readme.txt").write_text("what is not read does not matter")


def test_what_cannot_be_recorded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        backbones.add(folder, "../mine")
    with pytest.raises(InputError, match="not a directory"):
        backbones.add(tmp_path / "gone", "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no .safetensors"):
        backbones.add(tmp_path / "empty", "mine")


def test_a_registry_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BKCODEC_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(BkcError, match="backbones.json"):
        backbones.add(folder, "mine")


def test_a_path_needs_no_registry(folder: Path) -> None:
    backbones.registry_file().parent.mkdir()
    backbones.registry_file().write_text("[" * 100_000)
    assert backbones.find_directory(str(folder)) == folder
    with pytest.raises(UnsupportedError, match="damaged"):
        backbones.find_directory("mine")


def test_a_damaged_registry_is_named() -> None:
    path = backbones.registry_file()
    path.parent.mkdir()
    path.write_text("[]")
    with pytest.raises(UnsupportedError, match=r"backbones\.json: damaged"):
        backbones.registered()


def test_repositories_need_a_pinned_revision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for source in ("someone/bk-sdm", "someone/bk-sdm@main"):
        with pytest.raises(UsageError, match="pinned revision"):
            backbones.find_directory(source)
    asked: list[object] = []

    def snapshot(repository: str, revision: str, allow_patterns: list[str]) -> str:
        asked.extend([repository, revision, allow_patterns])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert backbones.find_directory(f"someone/bk-sdm@{COMMIT}") == tmp_path
    assert asked[:2] == ["someone/bk-sdm", COMMIT]
    assert "unet/*.safetensors" in asked[2] and not any(".bin" in p for p in asked[2])

    def refuse(*_: object, **__: object) -> str:
        asked.append("again")
        raise OSError("no network\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    for _ in range(2):  # the second of many files
        with pytest.raises(UnsupportedError, match=r"cannot be fetched \(no network\)"):
            backbones.find_directory(f"someone/other@{COMMIT}")
    assert asked.count("again") == 1


def test_a_registry_that_is_a_pipe_is_named() -> None:
    path = backbones.registry_file()
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(UnsupportedError, match=r"backbones\.json: is no regular file"):
        backbones.registered()


def test_nothing_is_lost_when_many_record_at_once(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"1")
    code = (
        "import sys; from pathlib import Path; from bkcodec import backbones; "
        "backbones.add(Path(sys.argv[1]), sys.argv[2])"
    )
    commands = [[sys.executable, "-c", code, str(tmp_path), f"b{i}"] for i in range(6)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0] * 6
    assert {entry.name for entry in backbones.registered()} == {f"b{i}" for i in range(6)}
