"""What the process around us may be like."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import names
from PIL import Image

import bkcodec
from bkcodec import machine
from bkcodec.backbones import registered
from bkcodec.bundle import installed_bundles


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_standard_output_without_buffers_is_written_whole(
    tmp_path: Path, small: Image.Image
) -> None:
    """A pipe that nobody waits for takes some of it only."""
    (tmp_path / "a.bkc").write_bytes(bkcodec.encode(small.resize((400, 300))))
    command = [sys.executable, "-m", "bkcodec", "decode", "a.bkc", "-o", "-", "--format", "ppm"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    read, write = os.pipe()
    os.set_blocking(write, False)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    os.close(read)
    assert done.returncode == 1 and "standard output: cannot be written" in done.stderr
    whole = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert whole.returncode == 0 and len(whole.stdout) == 400 * 300 * 3 + len("P6\n400 300\n255\n")


def test_regions_may_be_made_on_the_way(small: Image.Image) -> None:
    regions = (bkcodec.Region(0, 0, 64, 64),)
    options = [bkcodec.EncodeOptions(quality=30, regions=r) for r in (regions, iter(regions))]  # type: ignore[arg-type]
    assert options[0] == options[1] and options[1].regions == regions
    assert bkcodec.encode(small, options[1]) == bkcodec.encode(small, options[0])


def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path: Path, small: Image.Image) -> None:
    os.mkfifo(tmp_path / "pipe")
    options = bkcodec.EncodeOptions(effort=1, tune="lpips", lpips=tmp_path / "pipe")
    with pytest.raises(bkcodec.InputError, match="LPIPS"):
        bkcodec.encode(small, options)


def test_standard_input_that_does_not_wait(tmp_path: Path, small: Image.Image) -> None:
    """Somebody else's pipe may give nothing for a while, and less than was asked for."""
    small.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    read, write = os.pipe()
    os.set_blocking(read, False)
    command = [sys.executable, "-m", "bkcodec", "encode", "-", "-o", "a.bkc"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=read) as process:
        os.close(read)
        with open(write, "wb", buffering=0) as file:
            for part in (data[:3], data[3 : len(data) // 2], data[len(data) // 2 :]):
                time.sleep(0.7)
                file.write(part)
    assert process.returncode == 0
    assert (tmp_path / "a.bkc").read_bytes() == bkcodec.encode(tmp_path / "a.png")


def test_file_objects_that_give_little_at_once(small: Image.Image) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 5))

    data = bkcodec.encode(small)
    whole = bkcodec.decode(data)
    assert bkcodec.decode_from(Slow(data)).tobytes() == whole.tobytes()


def test_names_that_no_file_can_have(run: Callable[..., int], here: Path) -> None:
    with pytest.raises(bkcodec.InputError, match="cannot be read"):
        bkcodec.encode("a\0b.png")
    before = names(here)
    assert run("encode", "a\0b.png", "-o", "out/") == 3
    assert names(here) == before
    assert run("encode", "a\0b.png", "", "one.png", "-o", "out/") == 1
    assert names(here / "out") == ["one.bkc"]


def test_a_home_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BKCODEC_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    monkeypatch.setenv("HOME", os.devnull)
    assert registered() == [] and installed_bundles() == ()


@pytest.mark.parametrize(
    ("wish", "threads"), [("9" * 20, None), ("3", 3), ("0", 1), ("\u0663", None)]
)
def test_numbers_of_threads(
    wish: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setitem(machine._SETTINGS, "threads", 0)
    usual = machine.n_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert machine.n_threads() == (threads or usual)
