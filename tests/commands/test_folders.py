"""Folders as inputs, and what lies in them that is no picture."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Run = Callable[..., int]


@pytest.fixture
def here(tmp_path: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/one.png, photos/notes.txt, an empty folder; the current folder."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "empty").mkdir()
    small.save(tmp_path / "photos" / "one.png")
    (tmp_path / "photos" / "notes.txt").write_text("notes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_output_of_a_folder_is_one(here: Path, run: Run) -> None:
    assert run("encode", "photos", "-o", "coded") == 0
    assert run("decode", "coded", "-o", "back") == 0
    assert (here / "back" / "one.png").is_file()
    assert run("encode", "photos", "-o", "album.jpg/") == 0  # a slash says that it is a folder
    assert (here / "album.jpg" / "one.bkc").is_file()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_folder_does_not_become_a_file(
    here: Path, run: Run, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run("encode", "photos", "-o", "coded/") == 0
    source = "photos" if command == "encode" else "coded"
    name = "x.bkc" if command == "encode" else "x.png"
    assert run(command, source, "-o", name) == 2
    assert f"say {name}/" in capsys.readouterr().err and not (here / name).exists()


def test_an_empty_folder_is_one_failure_among_others(
    here: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("encode", "empty", "photos/one.png", "-o", "coded/") == 1
    assert (here / "coded" / "one.bkc").is_file()
    assert "empty: nothing to do" in capsys.readouterr().err
    assert run("encode", "empty", "-o", "coded/") == 3


def test_what_is_left_out_of_a_folder_is_counted(
    here: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "elsewhere").mkdir()
    shutil.copy(here / "photos" / "one.png", here / "elsewhere" / "two.png")
    (here / "photos" / "linked").symlink_to(here / "elsewhere")
    (here / "photos" / "broken.png").symlink_to("nowhere.png")
    os.mkfifo(here / "photos" / "pipe.png")
    assert run("encode", "photos", "photos/", "-r", "-o", "coded/", "--json") == 1
    *rows, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert last["summary"]["left_out"] == {".txt": 1, "linked folder": 1, "pipe or device": 1}
    errors = {Path(row["input"]).name: row["error"] for row in rows if "error" in row}
    assert list(errors) == ["broken.png"] and "no such file" in str(errors)
    assert last["summary"]["done"] == 1 and last["summary"]["failed"] == 1


@pytest.mark.parametrize(
    ("command", "name", "hint"),
    [("encode", "one.bkc", "use decode"), ("decode", "photos/one.png", "use encode")],
)
def test_the_wrong_direction_is_named(
    here: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
    hint: str,
) -> None:
    assert run("encode", "photos/one.png", "-o", "one.bkc") == 0
    assert run(command, name) == 3 and hint in capsys.readouterr().err


def test_equal_names_are_kept_apart_by_nothing(
    here: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(here / "photos", here / "more")
    assert run("encode", "photos/one.png", "more/one.png", "-o", "coded/") == 1
    assert "--keep-extension" not in capsys.readouterr().err


def test_a_file_is_no_folder(here: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encode", "photos/one.png", "-o", "photos/notes.txt/x.bkc") == 1
    assert "Not a directory" in capsys.readouterr().err


def test_links_that_lead_in_a_circle(
    here: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a").symlink_to("b")
    (here / "b").symlink_to("a")
    assert run("encode", "photos/one.png", "-o", "a/x.bkc") == 1
    assert "unexpected" not in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["encode", "photos/one.png", "-o", "-"], ["--help"]])
def test_a_full_disk_behind_standard_output(here: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "bkcodec", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left" in done.stderr and "unexpected" not in done.stderr
