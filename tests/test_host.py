"""What the process around us may be like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import bkcodec


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
