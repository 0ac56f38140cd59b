from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bkcodec import cli
from bkcodec.codec import Codec

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("BKCODEC_TEST_DATA") or "no-evaluation-data")


@pytest.fixture(scope="session")
def lake() -> Image.Image:
    """The sample photo, 768 x 512."""
    with Image.open(ROOT / "tests" / "samples" / "lake.png") as image:
        return image.convert("RGB")


@pytest.fixture(scope="session")
def small(lake: Image.Image) -> Image.Image:
    """A detail of the sample photo, 130 x 87: no multiple of anything."""
    return lake.crop((200, 180, 330, 267))


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec("lite", "cpu")


@pytest.fixture
def bkc(small: Image.Image, codec: Codec) -> bytes:
    return codec.encode(small)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Call the command line in this process; returns the exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bkcodec", *map(str, arguments)])
        threads = torch.get_num_threads()
        try:
            cli.run()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            torch.set_num_threads(threads)  # -j takes some away for the life of a process
        return 0

    return call


def fresh(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Call the command line in a process of its own."""
    command = [sys.executable, "-m", "bkcodec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def psnr(a: Image.Image, b: Image.Image) -> float:
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def shared(name: str) -> Path:
    """A folder of the evaluation data, or a skip that says why."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"evaluation data {name} is not here (set BKCODEC_TEST_DATA)")
    return SHARED / name
