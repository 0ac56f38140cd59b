"""Training, at a size that takes seconds: it learns, resumes exactly, exports what it says."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import SIZES, SMALL, newest, shared
from PIL import Image

import bkcodec
from bkcodec.bundle import load_bundle
from bkcodec.codec import Codec
from bkcodec.commands.values import pair
from bkcodec.errors import InputError
from bkcodec.models.config import ModelConfig
from bkcodec.models.lpips import Lpips
from bkcodec.prior.build import integer_weights
from bkcodec.train import start
from bkcodec.train.checkpoint import load_run
from bkcodec.train.data import Photos
from bkcodec.train.objectives.joint import JointObjective
from bkcodec.train.options import TrainOptions
from bkcodec.train.prior.density import ContinuousPrior
from bkcodec.train.prior.network import ContextNetwork

pytestmark = pytest.mark.usefixtures("few_prior_steps", "fresh_accelerator")


def test_photos_are_read_once_and_bad_ones_counted(photos: Path, tmp_path: Path) -> None:
    data = Photos(photos, 176)
    assert len(data) == 2 and data.n_skipped == 2
    batch = data.batch((0, 5, 0), 3, 176)
    assert batch.shape == (3, 3, 176, 176) and 0 <= batch.min() < batch.max() <= 1
    assert torch.equal(batch, data.batch((0, 5, 0), 3, 176))
    for other in ((0, 6, 0), (0, 5, 1), (1, 5, 0)):
        assert not torch.equal(batch, data.batch(other, 3, 176))
    with pytest.raises(InputError, match="no readable photo"):
        Photos(tmp_path, 176)


def test_folders_are_mixed_by_weight(tmp_path: Path) -> None:
    for name, colour, count in (("dark", 0, 3), ("light", 255, 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (200, 180), (colour,) * 3).save(tmp_path / name / f"{i}.png")
    data = Photos([(tmp_path / "dark", 1.0), (tmp_path / "light", 3.0)], 176)
    rng = np.random.default_rng(0)
    light = np.mean([float(data.crop(rng, 176).mean()) > 128 for _ in range(400)])
    assert 0.68 < light < 0.82


def test_the_prior_is_a_distribution_at_any_step_size() -> None:
    prior = ContinuousPrior(3)
    for size in (0.3, 1.0, 4.0):
        symbols = torch.arange(-400, 401).float()[None, None, :, None].expand(1, 3, 801, 1)
        step = torch.full((1, 3, 1, 1), size)
        bits = torch.stack([prior.bits(symbols[:, :, i : i + 1] * step, step) for i in range(801)])
        assert bits.shape == (801, 1, 3, 1, 1)
        probabilities = torch.diff(
            prior.cumulative(((torch.arange(-400, 402) - 0.5) * size).expand(3, -1))
        )
        assert torch.allclose(probabilities.sum(dim=1), torch.ones(3), atol=1e-3)
        likely = (probabilities > 1e-4).all(dim=0)
        expected = -torch.log2(probabilities[:, likely]).sum(dim=0)
        assert likely.any()
        found = bits[likely].sum(dim=(1, 2, 3, 4))
        assert torch.allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_killed_and_resumed_is_the_run_that_was_not_killed(
    train: Callable[..., int], photos: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, 6, "--save-steps", "2") == 0
    code = (
        "import sys\nfrom bkcodec import cli\nfrom bkcodec.train import start, trainer\n"
        "start.PRIOR_STEPS, trainer.REPORT_STEPS, start.MEASURED_BATCHES = 60, 1, 2\n"
        "cli.run()\n"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
            "train",
            "--data",
            photos,
            "--val",
            photos,
            "-o",
            parts,
            "--device",
            "cpu",
            "--max-steps",
            "6",
            "--save-steps",
            "2",
            *SMALL,
            *SIZES,
        ],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(parts.glob("checkpoint_*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (parts / "checkpoint_0000006.safetensors").exists()
    assert train(parts, 6) == 3  # without --resume
    assert train(parts, 6, "--resume", "--seed", "1") == 3
    assert train(parts, 6, "--resume", "--save-steps", "2") == 0
    assert "resumed at step" in (parts / "training.log").read_text()
    expected, found = newest(whole), newest(parts)
    assert expected.keys() == found.keys()
    for name in expected:
        assert np.allclose(expected[name], found[name], atol=1e-6), name


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 1, "the loss is not finite"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 6, "Lower --batch-size"),
    ],
)
def test_trouble_in_a_step_is_one_clear_line(
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception | None,
    code: int,
    message: str,
) -> None:
    def forward(*_: object) -> object:
        if error is not None:
            raise error
        return torch.tensor(math.nan), {}

    monkeypatch.setattr(JointObjective, "forward", forward)
    assert train(tmp_path / "run", 3) == code
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert message in line


def test_a_rehearsal_writes_nothing(
    train: Callable[..., int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert train(tmp_path / "run", 100, "--dry-run") == 0
    assert not (tmp_path / "run").exists()
    assert "crops per second, of 176 pixels" in caplog.text and "after 100 steps" in caplog.text


def test_mixed_precision_runs(
    train: Callable[..., int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    losses = {}
    for precision in ("no", "bf16"):
        caplog.clear()
        assert train(tmp_path / "run", 3, "--dry-run", "--precision", precision) == 0
        assert AcceleratorState().mixed_precision == precision
        AcceleratorState._reset_state(reset_partial_state=True)
        losses[precision] = float(caplog.text.split("loss ")[1].split()[0])
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.05)


def test_a_config_file_and_epochs(
    run: Callable[..., int], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "lite.toml"
    config.write_text(
        f'data = "{photos}=2"\nval = "{photos}"\nbatch-size = 2\nimage-size = 176\n'
        "N = 16\nM = 32\nlambda = 0.01\nepochs = 3\nseed = 7\ndiffusion_steps = 2\n"
    )
    folder = tmp_path / "run"
    assert run("train", "--config", config, "-o", folder, "--seed", "8", "--device", "cpu") == 0
    record = json.loads((folder / "run.json").read_text())
    assert record["options"]["seed"] == 8 and record["model"]["M"] == 32
    assert record["options"]["lambda_min"] == record["options"]["lambda_max"] == 0.01
    assert (folder / "checkpoint_0000003.safetensors").is_file()  # 2 photos, 2 a batch, 3 epochs
    config.write_text("encoder-depths = [3, 4, 5]\n")
    assert run("train", "--config", config, "-o", folder) == 2
    config.write_text("[encoder-depths]\nfine = 3\n")
    assert run("train", "--config", config, "-o", folder) == 2
    config.write_text("bach-size = 2\n")
    assert run("train", "--config", config, "-o", folder) == 2
    assert "unknown option bach-size" in capsys.readouterr().err


def test_learn_export_and_use(
    train: Callable[..., int],
    run: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    lake: Image.Image,
    lpips_file: Path,
) -> None:
    folder = tmp_path / "run"
    assert train(folder, 40, "--lr", "2e-3", "--save-steps", "10") == 0
    lines = (folder / "training.log").read_text().splitlines()
    costs = [float(line.split("val cost ")[1].split()[0]) for line in lines if "val cost" in line]
    assert len(costs) == 4 and costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.992 * costs[0]
    assert list((folder / "tensorboard").iterdir())
    with Image.open(folder / "samples" / "0000040.png") as sheet:
        assert sheet.size == (5 * 320, 2 * 320)

    path = tmp_path / "own.safetensors"
    export = ("train", "--export", folder, "--data", photos)
    assert run(*export, "-o", path, "--name", "own") == 0
    record = json.loads(path.with_suffix(".provenance.json").read_text())
    assert record["validation"]["step"] == 40 and record["model"]["M"] == 32
    bundle = load_bundle(path)
    assert bundle.name == "own" and bundle.header["provenance"] == record

    lake.save(tmp_path / "lake.png")
    file, back = tmp_path / "lake.bkc", tmp_path / "back.png"
    assert run("encode", tmp_path / "lake.png", "-o", file, "-m", path, "-q", "60", "--verify") == 0
    assert run("decode", file, "-o", back) == 5  # not an installed bundle
    assert run("decode", file, "-o", back, "-m", path) == 0
    assert bkcodec.info(file.read_bytes())["model"] is None
    exported_rate_is_that_of_training(folder, Codec(path), lake)

    factorized = tmp_path / "factorized.safetensors"
    assert run(*export, "-o", factorized, "--prior", "factorized") == 0
    assert run("encode", tmp_path / "lake.png", "-o", tmp_path / "f.bkc", "-m", factorized) == 0
    texture_phase_keeps_files(train, run, photos, tmp_path, path, lpips_file)


def exported_rate_is_that_of_training(folder: Path, codec: Codec, lake: Image.Image) -> None:
    """The coded string and the in-training rate of the same symbols."""
    options = TrainOptions(**json.loads((folder / "run.json").read_text())["options"])
    prior = ContextNetwork(options.context(32), ModelConfig().anchors)
    prior.load_state_dict(load_run(folder)[1]["prior"])
    z = codec.encoder.analyse(np.asarray(lake), 0)[1]
    for level in (80, 160):
        step = torch.from_numpy(codec.encoder.steps[level])[None, :, None, None]
        data, symbols = codec.bundle.prior.level(level).encode(codec.encoder.quantise(z, level))
        whole = torch.from_numpy(symbols).float()[None]
        learned = prior.bits(whole * step, whole, step, torch.tensor([level / 200])).sum().item()
        assert 8 * len(data) < 1.01 * learned + 64  # counted tables may only be better


def texture_phase_keeps_files(
    train: Callable[..., int],
    run: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    path: Path,
    lpips_file: Path,
) -> None:
    folder, textured = tmp_path / "texture", tmp_path / "textured.safetensors"
    more = (
        "--phase",
        "texture",
        "--lpips",
        lpips_file,
        "--lpips-weight",
        "1",
        "--adversarial-weight",
        "0.1",
        "--init-from",
        path,
    )
    assert train(folder, 3, *more) == 0
    assert "lpips-sq" in (folder / "training.log").read_text()
    assert run("train", "--export", folder, "--data", photos, "-o", textured) == 0
    other = ("--prior", "factorized")
    assert run("train", "--export", folder, "--data", photos, "-o", tmp_path / "no", *other) == 2
    before, after = load_bundle(path), load_bundle(textured)
    assert before.fingerprint == after.fingerprint
    changed = {
        k for k in before.networks if not np.array_equal(before.networks[k], after.networks[k])
    }
    assert changed and all(k.startswith(("unet.texture", "vae.decoder.texture")) for k in changed)
    file = (tmp_path / "lake.bkc").read_bytes()
    for steps, same in ((1, True), (3, False)):
        options = [bkcodec.DecodeOptions(steps=steps, model_path=str(p)) for p in (path, textured)]
        first, second = (np.asarray(bkcodec.decode(file, o)) for o in options)
        assert np.array_equal(first, second) == same


def test_starting_from_a_run_and_the_prior_phase(
    train: Callable[..., int], tmp_path: Path, run: Callable[..., int], photos: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(first, 2) == 0
    more = ("--phase", "prior", "--init-from", first, "--context-phases", "4")
    assert train(second, 2, *more) == 0
    before, after = (load_run(f)[1] for f in (first, second))
    assert all(torch.equal(v, after["model"][k]) for k, v in before["model"].items())
    assert not all(torch.equal(v, after["prior"][k]) for k, v in before["prior"].items())
    assert {k for k in after["prior"] if k.startswith("networks.0_3.")}
    bundle = tmp_path / "b.safetensors"
    assert run("train", "--export", second, "--data", photos, "-o", bundle) == 0
    assert load_bundle(bundle).prior.phases[:2] == [4, 4]
    with pytest.raises(InputError, match="not a run's folder"):
        start.load_init(str(tmp_path))

    grown = tmp_path / "grown"
    more = ("--init-from", bundle, "--context-phases", "4", "--encoder-depths", "4,4")
    assert train(grown, 1, *more) == 0
    model, prior = load_run(second)[1].values()
    deeper, kept = load_run(grown)[1].values()
    assert set(model) < set(deeper)  # one block more, the others go on
    assert torch.allclose(model["h_a.stem.weight"], deeper["h_a.stem.weight"], atol=2e-3)
    weight = "networks.1_1.third"
    assert torch.allclose(prior[weight], kept[weight], atol=2e-2)
    assert train(tmp_path / "x", 1, *more, "--phase", "prior") == 2
    config = tmp_path / "lite.toml"  # one file for all phases
    config.write_text("encoder-depths = [4, 4]\n")
    again = ("--init-from", grown, "--config", config, "--phase", "prior")
    assert train(tmp_path / "y", 1, *again) == 0
    with pytest.raises(click.BadParameter, match="such as 3,4"):
        pair("3")


def test_lpips_weights_are_checked(lpips_file: Path, tmp_path: Path) -> None:
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    lpips = Lpips(lpips_file)
    assert lpips(a, b).shape == (2,) and (lpips(a, b) > 0).all()
    assert torch.allclose(lpips(a, a), torch.zeros(2))
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="LPIPS weights"):
        Lpips(tmp_path / "bad.safetensors")


def test_lpips_ranks_pictures_as_published() -> None:
    """Against the figures that come with the weights: 0.394 and 0.200 for the two examples."""
    folder = shared("weights/lpips_squeeze")
    lpips = Lpips(folder / "lpips_squeeze.safetensors")
    examples = {}
    for name in ("ex_ref", "ex_p0", "ex_p1"):
        with Image.open(folder / f"{name}.png") as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        examples[name] = pixels.permute(2, 0, 1)[None].float() / 255
    assert lpips(examples["ex_ref"], examples["ex_p0"]).item() == pytest.approx(0.394, abs=0.005)
    assert lpips(examples["ex_ref"], examples["ex_p1"]).item() == pytest.approx(0.200, abs=0.005)


def test_weights_of_equal_shares_are_equal() -> None:
    assert integer_weights(np.ones(4)).tolist() == [2**14] * 4


@pytest.mark.slow
def test_two_processes(photos: Path, tmp_path: Path) -> None:
    """As a launcher starts them: each its own crops, one folder, one result."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "-m",
        "bkcodec.train",
        "--data",
        photos,
        "--val",
        photos,
        "-o",
        tmp_path / "run",
        "--device",
        "cpu",
        "--max-steps",
        "3",
        *SMALL,
        *SIZES,
    ]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes" in (tmp_path / "run" / "training.log").read_text()
    assert len(list((tmp_path / "run").glob("checkpoint_*.safetensors"))) == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["processes"] == 2
