"""The parts of training: qualities, losses, wider networks, grids of integers, their phases."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_msssim
import torch
from conftest import ROOT, newest
from PIL import Image
from safetensors.numpy import load_file
from small_prior import CHANNELS, Steps, draw, integer_prior, random_network

from bkcodec.bundle import load_bundle
from bkcodec.codec import Codec
from bkcodec.models.blocks import SIGNED, UNSIGNED, WEIGHT_MAX, Conv
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig
from bkcodec.options import MAX_LEVEL
from bkcodec.train.data import Photos
from bkcodec.train.grids import measure_grids
from bkcodec.train.grow import take_over
from bkcodec.train.objectives.joint import JointObjective
from bkcodec.train.objectives.similarity import ms_ssim
from bkcodec.train.options import TrainOptions
from bkcodec.train.positions import MAP_SHARE, draw_positions
from bkcodec.train.prior.network import ContextConfig, ContextNetwork, shape_of, spread_phases
from bkcodec.train.start import load_init

TINY = ModelConfig(N=16, M=32)

pytestmark = pytest.mark.usefixtures("few_prior_steps", "fresh_accelerator")


@pytest.mark.parametrize("size", [(176, 192), (179, 201)])
def test_ms_ssim_is_that_of_the_library(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, *size)
    values, gradients = [], []
    for measure in (
        ms_ssim,
        lambda a, b: pytorch_msssim.ms_ssim(a, b, data_range=1.0, size_average=False),
    ):
        x_hat = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clone()
        x_hat.requires_grad_()
        values.append(measure(x_hat, x))
        values[-1].sum().backward()
        gradients.append(x_hat.grad)
    assert torch.allclose(*values, atol=1e-5) and values[0].shape == (2,)
    assert torch.allclose(*gradients, atol=1e-3 * float(gradients[1].abs().max()))


def test_qualities_of_batches() -> None:
    drawn = [draw_positions(8, 12, 11, torch.Generator().manual_seed(i)) for i in range(200)]
    assert torch.equal(drawn[7], draw_positions(8, 12, 11, torch.Generator().manual_seed(7)))
    maps = [quality for quality in drawn if quality.ndim == 3]
    assert abs(len(maps) / len(drawn) - MAP_SHARE) < 0.1
    for quality in maps:
        assert quality.shape == (8, 12, 11) and quality.min() >= 0 and quality.max() <= 1
        blocks = quality[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
        assert torch.equal(blocks[:, :, :11], quality)
    assert any((quality[0] != quality[0, 0, 0]).any() for quality in maps)
    for quality in (quality for quality in drawn if quality.ndim == 1):
        assert torch.equal((quality * 8).floor().sort().values, torch.arange(8.0))


def test_the_prior_agrees_with_its_integers_on_a_level_map() -> None:
    """The rate in training is that of the coded string, within 1 %; an even map changes nothing."""
    network = random_network(7, noise=0.02)
    prior = integer_prior(network)
    z, levels = draw(5, 40, 44), np.full((40, 44), 60, np.uint8)
    levels[8:28, 16:40], levels[32:] = 180, 20
    quality = torch.from_numpy(levels)[None] / MAX_LEVEL
    step = (0.8 * 0.1**quality)[:, None].expand(-1, CHANNELS, -1, -1)  # as Steps has it
    coder = prior.at(levels)
    data, coded = coder.encode((z / step[0]).round().numpy())
    assert np.array_equal(coder.decode(data, 40, 44), coded)
    symbols = torch.from_numpy(coded).float()[None]
    bits = network.bits(symbols * step, symbols, step, quality)
    first = slice(None, None, 4)
    order = network.order[: network.config.groups[0]]
    own = (symbols * step)[:, order, first, first], step[:, order, first, first]
    learned = network.first.bits(*own).sum()
    counted = prior.first.at(levels[first, first])
    _, p = counted.likelihoods(coded[order.numpy()][:, first, first])
    expected = (bits.sum() - learned).item() - np.log2(p.astype(np.float64)).sum()
    assert abs(8 * len(data) - expected) < 0.01 * expected + 64
    even = np.full((40, 44), 100, np.uint8)
    symbols_100 = (z / Steps().step(torch.tensor([0.5]))[0]).round().numpy()
    assert prior.at(even).encode(symbols_100)[0] == prior.level(100).encode(symbols_100)[0]
    assert coded.shape == (CHANNELS, 40, 44)


def random_model(config: ModelConfig, seed: int = 0) -> BkSdmCompression:
    """Networks of which no part is zero any more."""
    torch.manual_seed(seed)
    model = BkSdmCompression(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".linear" not in name and "quantiser" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.03)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("grown", [{"inner": 0.75}, {"N": 24}, {"encoder_depths": (4, 5)}])
def test_wider_and_deeper_networks_begin_as_the_old_ones(grown: dict[str, object]) -> None:
    old = random_model(TINY)
    new = BkSdmCompression(ModelConfig(**{**TINY.as_dict(), **grown}))
    take_over(new, old.state_dict())
    x, quality = torch.rand(2, 3, 96, 112), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        before, after = (model(x, quality) for model in (old, new))
    assert torch.allclose(before["z"], after["z"], atol=1e-4)
    assert torch.allclose(before["x_hat"], after["x_hat"], atol=1e-4)
    loss = new(x, quality)["x_hat"].square().mean()  # and what is new learns
    loss.backward()
    name = "vae.decoder.fine.blocks.0.expand.weight"
    gradient = dict(new.named_parameters())[name].grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_convolutions_on_the_grids_of_integer_networks() -> None:
    model = random_model(TINY)
    crops = torch.rand(4, 3, 96, 96).mul(255).round() / 255
    full = model(crops, 0.6)
    measure_grids(model, [crops], torch.Generator().manual_seed(0))
    layers = [layer for layer in model.modules() if isinstance(layer, Conv)]
    assert len(layers) > 60 and all(layer.input_exponent is not None for layer in layers)
    seen: dict[Conv, torch.Tensor] = {}
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, x: seen.__setitem__(layer, x[0]))
    rounded = model(crops, 0.6)
    error = (rounded["x_hat"] - full["x_hat"]).abs()
    assert 0 < error.mean() < 0.02
    for layer, x in seen.items():
        unit = layer.grid.unit * 2.0 ** -float(layer.input_exponent)
        whole = layer.rounded_input(x) / unit
        assert torch.allclose(whole, whole.round(), atol=1e-3)
        assert layer.grid.low <= whole.min() and whole.max() <= layer.grid.high
        weight = layer.rounded_weight() * layer.grid.unit
        scale = torch.exp2(torch.frexp(weight.abs().amax(dim=(1, 2, 3), keepdim=True))[1] - 6.0)
        integers = weight / scale
        assert torch.allclose(integers, integers.round(), atol=1e-3)
        assert integers.abs().max() <= WEIGHT_MAX + 1e-3


def test_no_sum_leaves_what_float32_holds() -> None:
    layer = Conv(256, 4, 3, grid=UNSIGNED)
    torch.nn.init.constant_(layer.weight, 0.02)  # as large as each other: the worst case
    layer.input_exponent = torch.tensor(3.0)
    integers = layer.rounded_weight() * 2**10  # 7 bits alone would allow 2^11, and 40 * 2304 * 255
    assert torch.equal(integers, integers.round()) and integers.max() <= WEIGHT_MAX
    assert 2**23 < 255 * integers.sum(dim=(1, 2, 3)).max() < 2**24


def test_the_gradient_passes_through_the_rounding() -> None:
    torch.manual_seed(0)
    layer = Conv(8, 8, grid=SIGNED)
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    plain = x.grad.clone()
    layer.input_exponent, x.grad = torch.tensor(5.0), None
    layer(x).sum().backward()
    assert torch.allclose(x.grad, plain, atol=0.02) and layer.weight.grad is not None


def test_what_is_drawn_has_its_share(photos: Path) -> None:
    plain, drawn = Photos(photos, 176), Photos(photos, 176, rendered=1.0)
    assert drawn.batch((0, 1, 0), 2, 176).shape == (2, 3, 176, 176)
    assert not torch.equal(plain.batch((0, 1, 0), 2, 176), drawn.batch((0, 1, 0), 2, 176))


def test_photos_are_read_as_the_encoder_reads_them(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 200 * 180).reshape(180, 200).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "grey16.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.new("RGB", (240, 180), "navy")
    turned.save(tmp_path / "turned.jpg", exif=exif)
    grey, upright = Photos(tmp_path, 176).images
    assert 100 < grey.float().mean() < 155
    assert upright.shape == (3, 240, 180)


def test_the_learning_rate_of_an_open_run_falls_at_its_end() -> None:
    whole, end = TrainOptions(), TrainOptions(decay=0.2)
    assert whole.rate_at(0) == end.rate_at(0) == end.rate_at(0.79) == pytest.approx(1.01)
    assert whole.rate_at(0.5) == pytest.approx(end.rate_at(0.9)) == pytest.approx(0.51)
    assert whole.rate_at(1) == end.rate_at(1) == end.rate_at(2) == pytest.approx(0.01)


def test_a_gradient_that_is_not_finite_takes_no_step(
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    objective, bad = JointObjective.forward, {1, 2}
    calls: list[int] = []

    def forward(self: JointObjective, x: torch.Tensor, generator: torch.Generator) -> object:
        loss, stats = objective(self, x, generator)
        calls.append(len(calls))
        if calls[-1] in bad:
            weight = self.model.vae.decoder.head.weight
            loss = loss + torch.sqrt((weight.sum() - weight.sum().detach()).abs())  # slope: inf
        return loss, stats

    monkeypatch.setattr(JointObjective, "forward", forward)
    assert train(tmp_path / "run", 4, "--save-steps", "1") == 0
    text = (tmp_path / "run" / "training.log").read_text()
    assert text.count("the gradient is not finite") == 2
    weights = load_file(tmp_path / "run" / "checkpoint_0000004.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())
    calls.clear()
    bad |= set(range(20))
    assert train(tmp_path / "broken", 20) == 1
    assert "10 gradients in a row are not finite" in capsys.readouterr().err


def test_from_joint_to_a_bundle_for_integers(
    train: Callable[..., int],
    run: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    lake: Image.Image,
) -> None:
    """Joint, quantise and decoder phase; a run that goes on has its grids again."""
    joint, grids = tmp_path / "joint", tmp_path / "grids"
    assert train(joint, 2, "--context-phases", "7", "--rendered", "0.5") == 0
    start = ("--init-from", joint, "--phase", "quantise", "--context-phases", "7")
    assert train(grids, 2, *start, "--inner", "0.75", "--save-steps", "1") == 0
    assert train(grids, 3, *start, "--inner", "0.75", "--resume") == 0
    state = newest(grids)
    exponents = {k: v for k, v in state.items() if k.endswith("input_exponent")}
    assert len(exponents) > 2 * 60
    assert all((v == v.round()).all() for v in exponents.values())
    (grids / "checkpoint_0000003.safetensors").unlink()
    assert train(grids, 3, *start, "--inner", "0.75", "--resume") == 0
    for name, value in newest(grids).items():
        assert np.allclose(value, state[name], atol=1e-6), name

    bundle = tmp_path / "own.safetensors"
    assert run("train", "--export", grids, "--data", photos, "-o", bundle, "--name", "own") == 0
    codec = Codec(bundle)
    assert codec.model.config.inner == 0.75
    layers = [layer for layer in codec.model.modules() if isinstance(layer, Conv)]
    assert all(layer.input_exponent is not None for layer in layers)
    data = codec.encode(lake)
    assert codec.decode(data).size == lake.size

    decoder = ("--init-from", bundle, "--phase", "decoder")
    assert train(tmp_path / "again", 1, "--init-from", bundle, "--context-phases", "7") == 0
    assert not [k for k in newest(tmp_path / "again") if "input_exponent" in k]  # back to floats
    assert train(tmp_path / "decoder", 2, *decoder, "--lr", "1e-2") == 0
    better = tmp_path / "better.safetensors"
    export = ("train", "--export", tmp_path / "decoder", "--data", photos)
    assert run(*export, "-o", better, "--name", "own") == 0
    assert load_bundle(better).fingerprint == load_bundle(bundle).fingerprint
    old, new = (load_file(path) for path in (bundle, better))
    for name, value in old.items():
        is_same = np.array_equal(value, new[name])
        kept = ("vae.encoder", "h_a", "quantiser.log_step", "steps")
        if name.startswith("prior.") or name.split(".", 1)[1].startswith(kept):
            assert is_same, name
    there_as_integers = ("h_s.stem.weight", "h_s.linear.bias", "h_s.blocks.blocks.0.film.weight")
    assert not [k for k in there_as_integers if f"net.{k}" in old]
    assert any(not np.array_equal(v, new[k]) for k, v in old.items() if k.startswith("int.h_s"))
    assert np.abs(np.asarray(Codec(better).decode(data), int)).shape == (512, 768, 3)


def test_a_run_goes_on_with_other_processes(
    train: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(tmp_path / "run", 1) == 0
    record = tmp_path / "run" / "run.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"processes": 2}))
    assert train(tmp_path / "run", 2, "--resume") == 0
    record.write_text(json.dumps(content | {"model": {**content["model"], "inner": 0.75}}))
    assert train(tmp_path / "run", 2, "--resume") == 3
    assert "the run had another inner" in capsys.readouterr().err


@pytest.mark.parametrize("there", [1, 2, 4, 7, 10])
@pytest.mark.parametrize("wanted", [1, 2, 4, 7, 10])
def test_a_prior_for_other_phases(there: int, wanted: int) -> None:
    """What a prior has is kept, with more phases and with fewer; only from one there is nothing."""
    state = random_network(there).state_dict()
    config = ContextConfig((2, 4, 8), (wanted,) * 3, 16)
    own, spread = ContextNetwork(config, 10).state_dict(), spread_phases(state, config)
    fitting = {k for k, v in own.items() if k in spread and spread[k].shape == v.shape}
    if there > 1 or wanted == 1:
        assert fitting == set(own)
        for name in ("networks.1_0.third", f"networks.2_{wanted - 1}.third"):
            last = name.replace(str(wanted - 1), str(there - 1)) if "2_" in name else name
            assert wanted == 1 or torch.equal(spread[name], state[last])


def test_what_does_not_apply_to_a_phase(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "a", 1, "--init-from", "lite", "--inner", "0.25") == 2
    assert "--inner: smaller than that of --init-from" in capsys.readouterr().err
    assert train(tmp_path / "b", 1, "--init-from", "lite", "--decoder-depths", "4,9") == 2
    assert "--decoder-depths: smaller" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_crops_that_are_no_whole_cells(train: Callable[..., int], tmp_path: Path) -> None:
    assert train(tmp_path / "run", 1, "--image-size", "200") == 0


def test_a_start_settles_the_phases_of_the_prior() -> None:
    """Its phases, groups and width are those of the run that starts, unless options say more."""
    shape = load_init("lite").context
    assert shape is not None
    assert shape == ContextConfig((4, 4, 8, 16, 32, 64, 96), (7, 4, 4, 4, 4, 2, 2), 48)
    for there in (1, 2, 4):
        network = random_network(there)
        assert shape_of(network.state_dict()) == network.config


@pytest.mark.slow
def test_all_stages_of_lite(photos: Path, tmp_path: Path, lpips_file: Path) -> None:
    """The plan that ships, in tiny; the same command again finds nothing left to do."""
    command = [
        sys.executable,
        ROOT / "scripts" / "train_lite.py",
        ROOT / "scripts" / "lite.toml",
        tmp_path / "runs",
        "--data",
        photos,
        "--val",
        photos,
        "--lpips",
        lpips_file,
        "--",
        "--max-steps",
        "1",
        "--batch-size",
        "1",
        "--image-size",
        "176",
        "--precision",
        "no",
        "--diffusion-steps",
        "2",
        "--device",
        "cpu",
    ]
    for _ in range(2):
        done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    bundles = [load_bundle(tmp_path / "runs" / f"{n}.safetensors") for n in ("prior", "texture")]
    assert bundles[0].fingerprint == bundles[1].fingerprint
    assert bundles[1].header["model"]["inner"] == 0.75
