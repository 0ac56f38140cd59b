from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file

from bkcodec import cli, machine
from bkcodec.codec import Codec

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of some shells
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children are not to inherit it

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
    """Call the command line in this process, which it may not end; returns the exit code."""
    monkeypatch.setattr(cli, "_leave", sys.exit)
    monkeypatch.setattr(cli, "_stop_on_signals", lambda: None)

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bkcodec", *map(str, arguments)])
        threads = torch.get_num_threads()
        try:
            cli.run()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            torch.set_num_threads(threads)  # -j takes some away for the life of a process
            machine._SETTINGS["threads"] = 0
        return 0

    return call


# What the tests of training share.
SIZES = ["--N", "16", "--M", "32"]
SMALL = ["--batch-size", "2", "--image-size", "176", "--lr", "6e-4", "--diffusion-steps", "2"]


@pytest.fixture
def few_prior_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from bkcodec.train import start, trainer

    monkeypatch.setattr(trainer, "REPORT_STEPS", 1)
    monkeypatch.setattr(start, "PRIOR_STEPS", 60)
    monkeypatch.setattr(start, "MEASURED_BATCHES", 2)


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps its settings for the life of a process."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def photos(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    lake.save(folder / "a.png")
    lake.transpose(Image.Transpose.ROTATE_90).save(folder / "b.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    lake.resize((90, 60)).save(folder / "tiny.png")
    return folder


@pytest.fixture
def train(run: Callable[..., int], photos: Path) -> Callable[..., int]:
    return lambda folder, steps, *more: run(
        "train",
        "--data",
        photos,
        "--val",
        photos,
        "-o",
        folder,
        "--device",
        "cpu",
        "--max-steps",
        steps,
        *SMALL,
        *(more if "--init-from" in more else [*SIZES, *more]),
    )


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right form; its weights are random."""
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    features = squeezenet1_1(weights=None).features.state_dict()
    tensors = {f"features.{k}": v for k, v in features.items()}
    for i, channels in enumerate((64, 128, 256, 384, 384, 512, 512)):
        tensors[f"lpips.lin{i}.model.1.weight"] = torch.rand(1, channels, 1, 1)
    path = tmp_path_factory.mktemp("lpips") / "random.safetensors"
    save_file(tensors, path)
    return path


def newest(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_file(max(folder.glob("checkpoint_*.safetensors"))))


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


@pytest.fixture
def here(tmp_path: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with one.png and two.png."""
    monkeypatch.chdir(tmp_path)
    small.save("one.png")
    small.crop((0, 0, 50, 40)).convert("L").save("two.png")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def camera_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera", orientation
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return exif


def exif_with(tag: int, kind: int, value: bytes) -> bytes:
    return b"II*\0" + struct.pack("<IHHHI4sI", 8, 1, tag, kind, 1, value, 0)
