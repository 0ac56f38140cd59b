"""Training, at a size that takes seconds: it learns, resumes exactly, exports what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import bkcodec
from bkcodec.bundle import load_bundle
from bkcodec.codec import Codec
from bkcodec.errors import InputError
from bkcodec.tables import integer_weights
from bkcodec.train import loop
from bkcodec.train.data import Photos
from bkcodec.train.prior import ContinuousPrior

SMALL = ["--N", "16", "--M", "32", "--batch-size", "2", "--image-size", "176"]


@pytest.fixture(scope="module", autouse=True)
def _few_prior_steps() -> None:
    loop.PRIOR_STEPS, loop.REPORT_STEPS = 40, 1


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
        "train", "--data", photos, "--val", photos, "-o", folder, "--device", "cpu",
        "--max-steps", steps, *SMALL, *more,
    )  # fmt: skip


def checkpoint(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_file(folder / "checkpoint.safetensors"))


def test_photos_are_read_once_and_bad_ones_counted(photos: Path, tmp_path: Path) -> None:
    data = Photos(photos, 176)
    assert len(data.images) == 2 and data.n_skipped == 2
    batch = data.batch(0, 5, 3, 176)
    assert batch.shape == (3, 3, 176, 176) and 0 <= batch.min() < batch.max() <= 1
    assert torch.equal(batch, data.batch(0, 5, 3, 176))
    assert not torch.equal(batch, data.batch(0, 6, 3, 176))
    with pytest.raises(InputError, match="no readable photo"):
        Photos(tmp_path, 176)


def test_the_prior_is_a_distribution_at_any_step_size() -> None:
    prior = ContinuousPrior(3)
    for size in (0.3, 1.0, 4.0):
        symbols = torch.arange(-400, 401).float()[None, None, :, None].expand(1, 3, 801, 1)
        step = torch.full((1, 3, 1, 1), size)
        bits = torch.stack([prior.bits(symbols[:, :, i : i + 1] * step, step) for i in range(801)])
        assert bits.shape == (801, 1)
        probabilities = torch.diff(
            prior.cumulative(((torch.arange(-400, 402) - 0.5) * size).expand(3, -1))
        )
        assert torch.allclose(probabilities.sum(dim=1), torch.ones(3), atol=1e-3)
        likely = (probabilities > 1e-4).all(dim=0)
        expected = -torch.log2(probabilities[:, likely]).sum(dim=0)
        assert likely.any()
        assert torch.allclose(bits[likely, 0], expected, rtol=1e-2, atol=1e-2)


def test_a_resumed_run_is_the_run_that_was_not_stopped(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "whole", 6) == 0
    real_step, calls = loop.Trainer._step, []

    def killed(self: loop.Trainer, x: torch.Tensor) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        stats = real_step(self, x)
        if len(calls) == 3:
            self.save(loop.SummaryWriter(str(tmp_path / "tb")))
        return stats

    monkeypatch.setattr(loop.Trainer, "_step", killed)
    assert train(tmp_path / "parts", 6) == 130
    monkeypatch.setattr(loop.Trainer, "_step", real_step)
    assert train(tmp_path / "parts", 6) == 3  # without --resume
    assert train(tmp_path / "parts", 6, "--resume", "--lr", "1e-3") == 3
    assert train(tmp_path / "parts", 6, "--resume") == 0
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        assert np.allclose(whole[name], parts[name], atol=1e-6), name


def test_a_nan_is_one_clear_line(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(
        loop.RateDistortion, "__call__", lambda *_: (torch.tensor(float("nan")), {})
    )
    assert train(tmp_path / "run", 3) == 1
    assert "the loss is not finite" in capsys.readouterr().err


def test_learn_export_and_use(
    train: Callable[..., int], run: Callable[..., int], photos: Path, tmp_path: Path,
    lake: Image.Image,
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    assert train(folder, 25, "--lr", "2e-3") == 0
    lines = [line for line in (folder / "training.log").read_text().splitlines() if "loss" in line]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 25 and np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    assert list((folder / "tensorboard").iterdir())

    path = tmp_path / "own.safetensors"
    assert run("train", "--export", folder, "--data", photos, "-o", path, "--name", "own") == 0
    record = json.loads(path.with_suffix(".provenance.json").read_text())
    assert record["validation"]["step"] == 25 and record["model"]["M"] == 32
    bundle = load_bundle(path)
    assert bundle.name == "own" and bundle.header["provenance"] == record

    lake.save(tmp_path / "lake.png")
    file, back = tmp_path / "lake.bkc", tmp_path / "back.png"
    assert run("encode", tmp_path / "lake.png", "-o", file, "-m", path, "-q", "60") == 0
    assert run("decode", file, "-o", back) == 5  # not an installed bundle
    assert run("decode", file, "-o", back, "-m", path) == 0

    # The exported tables and the in-training density agree about the rate of rounded symbols.
    averaged = {k: torch.from_numpy(v) for k, v in checkpoint(folder).items()}
    prior = ContinuousPrior(32)
    prefix = "ema/module.prior."
    prior.load_state_dict({k.removeprefix(prefix): v for k, v in averaged.items() if prefix in k})
    codec = Codec(path)
    z = codec._analyse(np.asarray(lake), 0)
    level = 120
    step = torch.from_numpy(codec._steps()[level])[None, :, None, None]
    symbols = codec._quantise(z, level)
    learned = prior.bits(torch.from_numpy(symbols).float()[None] * step, step).item()
    counted = codec.bundle.tables.level(level).information(symbols)
    assert counted < 1.05 * learned  # 25 steps: the density has not converged, counting has
    assert bkcodec.info(file.read_bytes())["model"] is None


def test_weights_of_equal_shares_are_equal() -> None:
    assert integer_weights(np.ones(4)).tolist() == [2**14] * 4
