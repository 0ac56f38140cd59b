"""Batches and odd arguments: one failure, one line, the rest goes on."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import camera_exif, names
from PIL import Image

from bkcodec.commands import batch, encode
from bkcodec.image.picture import Picture, rows_from_picture
from bkcodec.image.writing import save_rows

Run = Callable[..., int]


def test_extract_does_not_overwrite_its_input(run: Run, here: Path, small: Image.Image) -> None:
    small.save("photo.png", exif=camera_exif())
    assert run("encode", "photo.png", "-o", "photo.bkc") == 0
    before = Path("photo.bkc").read_bytes()
    arguments = ["info", "--extract", "exif", "-o", "./photo.bkc", "-f", "photo.bkc"]
    assert run(*arguments) == 2
    assert Path("photo.bkc").read_bytes() == before


def test_a_missing_file_does_not_stop_a_batch(run: Run, here: Path) -> None:
    assert run("encode", "one.png", "gone.png", "-o", "out/") == 1
    assert Path("out/one.bkc").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["encode", "n" * 300], 3),
        (["encode", "one.png", "-o", "loop.bkc"], 3),
        (["encode", "one.png", "--target-size", "inf"], 2),
        (["encode", "one.png", "--target-size", "5Mk"], 2),
        (["encode", "one.png", "--target-bpp", "inf"], 2),
        (["encode", ""], 3),
        (["encode", "one.png", "-o", "-", "-f"], 2),
        (["encode", "one.png", "-r"], 2),
        (["encode", "one.png", "one.png", "-o", "x/", "--alpha", "none"], 2),
        (["encode", "one.png", "--dry-run", "--keep-mtime"], 2),
        (["encode", "one.png", "-o", "one.png/x.bkc", "-f"], 1),
        (["decode", "one.png", "-o", "x.png", "--realism", "nan"], 2),
        (["info", "one.png", "-f"], 2),
    ],
)
def test_odd_arguments(
    run: Run, here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    Path("loop.bkc").symlink_to("loop.bkc")
    assert run(*arguments) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("bkcodec: error: ")


@pytest.mark.parametrize(
    "arguments",
    [("encode", "one.png", "--target-size", "9" * 400), ("encode", "one.png", "-o", "")],
)
def test_more_odd_arguments(run: Run, here: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments) == 2


def test_a_full_standard_output_is_one_line(bkc: bytes, here: Path) -> None:
    Path("one.bkc").write_bytes(bkc)
    command = [sys.executable, "-m", "bkcodec", "info", "one.bkc"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_a_closed_standard_output(here: Path) -> None:
    command = f"{sys.executable} -m bkcodec encode one.png -o - >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 2 and "standard output is closed" in done.stderr


def test_a_full_disk_under_decode_is_the_systems_error(run: Run, here: Path, bkc: bytes) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    for extension in ("png", "tiff", "ppm", "jpg", "webp"):
        rows = rows_from_picture(Picture(np.zeros((9, 9, 3), np.uint8)))
        with pytest.raises(OSError, match="No space left"):
            save_rows(rows, Full(), extension)


def test_a_batch_goes_on(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.png").write_text("no picture")
    assert run("encode", "one.png", "bad.png", "two.png", "-o", "out/", "--json") == 1
    shown = capsys.readouterr()
    *rows, last = [json.loads(line) for line in shown.out.splitlines()]
    assert [("error" in row) for row in rows] == [False, True, False]
    summary = last["summary"]
    assert rows[1]["exit_code"] == 3 and (summary["done"], summary["failed"]) == (2, 1)
    assert summary["bytes_after"] == sum(path.stat().st_size for path in here.glob("out/*"))
    assert names(here / "out") == ["one.bkc", "two.bkc"]


def test_unexpected_errors_are_one_line_too(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(encode, "read_source", broken)
    assert run("encode", "one.png") == 1
    shown = capsys.readouterr().err
    assert shown.strip() == "bkcodec: error: one.png: unexpected RuntimeError: a bug"
    assert run("encode", "one.png", "-v") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", [1, 2, 3, 64])
def test_jobs_share_the_threads(
    run: Callable[..., int],
    tmp_path: Path,
    small: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    wanted: int,
) -> None:
    """Never more threads of PyTorch than cores, whatever is asked for."""
    for i in range(4):
        small.save(tmp_path / f"{i}.png")
    cores, seen = torch.get_num_threads(), []
    attempts = batch.run_all

    def spy(jobs: list[object], work: object, n_jobs: int) -> object:
        seen.append((n_jobs, torch.get_num_threads()))
        return attempts(jobs, work, n_jobs)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "run_all", spy)
    assert run("encode", tmp_path, "-o", f"{tmp_path}/out/", "-j", wanted) == 0
    ((n_jobs, threads),) = seen
    assert n_jobs == min(wanted, cores, 4) and n_jobs * threads <= cores
    assert len(list((tmp_path / "out").iterdir())) == 4
