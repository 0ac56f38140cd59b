"""The bk-sdm bundle with tiny random parts plugged in: files, pictures, devices, errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers_models import (
    save_bk_sdm,
    save_kl_vae,
    save_tiny_vae,
)
from PIL import Image

import bkcodec
from bkcodec.bundle import Bundle, find_bundle, load_bundle
from bkcodec.codec import Codec
from bkcodec.coding import assembly
from bkcodec.container import container_from_bytes
from bkcodec.errors import UnsupportedError, UsageError
from bkcodec.models.denoising import Denoising
from bkcodec.models.sd.hyperprior import latent_basis
from bkcodec.models.sd.parts import SdUNet, placed
from bkcodec.options import Backbone, DecodeOptions, EncodeOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bk_sdm(tmp_path_factory.mktemp("bk-sdm"))


@pytest.fixture(scope="module")
def with_unet(folder: Path) -> Codec:
    return Codec("bk-sdm", "cpu", Backbone(str(folder)))


@pytest.fixture(scope="module")
def own_unet(folder: Path) -> Codec:
    return Codec("bk-sdm", "cpu", Backbone(str(folder), unet="own"))


@pytest.fixture
def bundle() -> Bundle:
    return load_bundle(find_bundle("bk-sdm"))


@pytest.mark.parametrize("flags", [(True, True), (True, False), (False, True)])
def test_all_combinations_compress(
    folder: Path, small: Image.Image, flags: tuple[bool, bool]
) -> None:
    model = bkcodec.create_bk_sdm_compression_model(folder, 16, 64, 2, *flags)
    x = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None].float() / 255
    packed = model.compress(x, 0.7)
    assert packed["shape"] == (3, 5)
    x_hat = model.decompress(packed["strings"], packed["shape"], 0.7)["x_hat"]
    assert x_hat.shape == (1, 3, 96, 160) and torch.isfinite(x_hat).all()
    with torch.no_grad():
        out = model(x, 0.7)
    bits = -out["likelihoods"]["z"].double().log2().sum().item()
    assert bits / 8 <= len(packed["strings"][0][0]) <= 1.005 * bits / 8 + 8


def test_pretrained_parts_need_a_path() -> None:
    with pytest.raises(UnsupportedError, match="bk_sdm_path"):
        bkcodec.create_bk_sdm_compression_model(None)


def test_an_untrained_hyperprior_codes_latents(folder: Path) -> None:
    model = bkcodec.create_bk_sdm_compression_model(folder, 16, 64, 1, True, False)
    y = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    level = torch.ones(1)
    with torch.no_grad():
        symbols = (model.h_a(y) / model.quantiser.step(level)).round()
        mean = model.believe(symbols, level).mean
    assert (mean - y).square().mean() < 0.06  # 0.7 squared over 12, and little else
    basis = latent_basis(64)
    assert torch.allclose(basis @ basis.t(), torch.eye(64), atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_gives_the_clean_latent(prediction: str) -> None:
    """Whatever the network's output means, x0 comes out of it."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float32) ** 2
    alpha = float(np.cumprod(1 - betas.astype(np.float64))[400])
    y, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    truth = {
        "epsilon": noise,
        "sample": y,
        "v_prediction": alpha**0.5 * noise - (1 - alpha) ** 0.5 * y,
    }

    class Oracle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(
            self, y_t: torch.Tensor, t: torch.Tensor, encoder_hidden_states: object
        ) -> object:
            del y_t, t, encoder_hidden_states
            return type("Output", (), {"sample": truth[prediction]})

    unet = SdUNet(Oracle(), betas, prediction, torch.zeros(77, 4))
    y_t = alpha**0.5 * y + (1 - alpha) ** 0.5 * noise
    assert torch.allclose(unet(y_t, torch.tensor([400.0])), y, atol=1e-4)
    assert abs(float(unet.alphas_cumprod[unet.start_timestep(0.8)].sqrt()) - 0.8) < 2e-3


def test_symbols_do_not_depend_on_what_is_plugged_in(
    own_unet: Codec, folder: Path, small: Image.Image, tmp_path: Path
) -> None:
    data = own_unet.encode(small)
    digest = bkcodec.info(data, verify=True)["symbols_sha256"]  # without torch, VAE or U-Net
    container = container_from_bytes(data)
    kl = save_kl_vae(tmp_path / "kl")
    for backbone in (Backbone(str(folder)), Backbone(vae=str(kl)), Backbone(str(folder), str(kl))):
        codec = Codec("bk-sdm", "cpu", backbone)
        image = codec.decode(data)
        assert image.size == small.size
        coder = codec.bundle.prior.level(container.level)
        again = coder.encode(coder.decode(container.z, *container.z_shape))[0]
        assert again == container.z
    assert bkcodec.info(data, verify=True)["symbols_sha256"] == digest


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (130, 87)])
def test_sizes_come_back(own_unet: Codec, small: Image.Image, size: tuple[int, int]) -> None:
    data = own_unet.encode(small.resize(size), EncodeOptions(quality=20))
    assert own_unet.decode(data).size == size


def test_our_unet_is_trusted_less_at_low_quality(
    with_unet: Codec, own_unet: Codec, small: Image.Image
) -> None:
    """A borrowed one is not."""
    for codec, expected in ((own_unet, (0.5, 0.75, 1.0)), (with_unet, (1.0, 1.0, 1.0))):
        for quality, realism in zip((20, 52.5, 80), expected, strict=True):
            data = codec.encode(small, EncodeOptions(quality=quality))
            usual, same = (codec.decode(data, DecodeOptions(realism=r)) for r in (None, realism))
            assert np.array_equal(np.asarray(usual), np.asarray(same))


def test_the_unet_of_the_backbone_is_used(
    with_unet: Codec, own_unet: Codec, small: Image.Image
) -> None:
    data = own_unet.encode(small)
    one, other = (np.asarray(c.decode(data)) for c in (with_unet, own_unet))
    assert (one != other).any()
    mean = DecodeOptions(realism=0.0)
    one, other = (np.asarray(c.decode(data, mean)) for c in (with_unet, own_unet))
    assert (one == other).all()


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "euler", "lcm"])
def test_several_steps(with_unet: Codec, small: Image.Image, scheduler: str) -> None:
    data = with_unet.encode(small)
    pictures = [
        np.asarray(with_unet.decode(data, DecodeOptions(steps=3, scheduler=scheduler, seed=s)))
        for s in (1, 1, 2)
    ]
    assert (pictures[0] == pictures[1]).all() and (pictures[0] != pictures[2]).any()


def test_tiles_of_a_tiny_vae_change_nothing(own_unet: Codec, lake: Image.Image) -> None:
    photo = lake.crop((0, 0, 500, 200))
    whole, tiled = (own_unet.encode(photo, EncodeOptions(tile=t)) for t in (0, 128))
    assert whole == tiled
    one, other = (
        np.asarray(own_unet.decode(whole, DecodeOptions(tile=t))).astype(int) for t in (0, 128)
    )
    assert np.abs(one - other).max() <= 1


def test_a_kl_vae_makes_its_own_tiles(folder: Path, lake: Image.Image, tmp_path: Path) -> None:
    codec = Codec("bk-sdm", "cpu", Backbone(str(folder), str(save_kl_vae(tmp_path / "kl")), "own"))
    photo = lake.crop((0, 0, 300, 200))
    data = codec.encode(photo, EncodeOptions(tile=128))
    assert codec.model.vae.autoencoder.use_tiling
    assert codec.decode(data, DecodeOptions(tile=128)).size == photo.size
    codec.decode(data, DecodeOptions(tile=0))
    assert not codec.model.vae.autoencoder.use_tiling


def test_effort_finds_a_better_start(with_unet: Codec, small: Image.Image) -> None:
    plain = container_from_bytes(with_unet.encode(small))
    searched = container_from_bytes(with_unet.encode(small, EncodeOptions(effort=2)))
    assert (plain.timestep, plain.seed) == (None, 0)
    assert plain.z == searched.z
    assert searched.timestep is not None or searched.seed
    model = with_unet.model
    latent, _ = with_unet.encoder.analyse(np.asarray(small), 0, keep_y=True)
    assert latent is not None
    y = torch.from_numpy(latent)[None]
    symbols = with_unet.bundle.prior.level(plain.level).decode(plain.z, *plain.z_shape)
    quality = torch.tensor([plain.level / 200])

    def error(timestep: int | None) -> float:
        z = torch.from_numpy(symbols)[None].float()
        y_hat = model.sample(z, quality, Denoising(timestep=timestep))
        return float((y_hat - y).square().mean())

    with torch.no_grad():
        assert error(searched.timestep) <= error(None)
    found = with_unet.coder.hints(latent, symbols, plain.level, small.size, 0, 2, math.inf)
    assert found == (searched.timestep, searched.seed)
    size = len(with_unet.encode(small, EncodeOptions(target_size=200, effort=2)))
    assert size <= 200


def test_a_bundle_without_its_backbone_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BKCODEC_BK_SDM", raising=False)
    with pytest.raises(UnsupportedError, match="needs a pretrained vae: name a directory"):
        Codec("bk-sdm", "cpu")


def test_the_environment_names_a_backbone(
    monkeypatch: pytest.MonkeyPatch, folder: Path, small: Image.Image
) -> None:
    monkeypatch.setenv("BKCODEC_BK_SDM", str(folder))
    codec = Codec("bk-sdm", "cpu")
    assert codec.model.backbone is not None and codec.decode(codec.encode(small))
    Codec("lite", "cpu")  # which needs none, is not disturbed


def test_an_unet_that_is_insisted_on(folder: Path, tmp_path: Path) -> None:
    vae = save_tiny_vae(tmp_path / "vae-only")
    with pytest.raises(UsageError, match="has no unet folder"):
        Codec("bk-sdm", "cpu", Backbone(str(vae), unet="bk-sdm"))
    with pytest.raises(UsageError, match="needs no backbone"):
        Codec("lite", "cpu", Backbone(str(folder)))


def test_through_the_command_line(
    run: Callable[..., int],
    folder: Path,
    small: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small.save(tmp_path / "a.png")
    bkc, out = tmp_path / "a.bkc", tmp_path / "b.png"
    assert run("encode", tmp_path / "a.png", "-m", "bk-sdm", "--bk-sdm", folder, "--effort", 1) == 0
    assert run("decode", bkc, "-o", out, "--bk-sdm", folder, "--steps", 2, "--seed", 3) == 0
    with Image.open(out) as image:
        assert image.size == small.size
    assert run("decode", bkc, "-o", out, "-f", "--vae", folder / "vae", "--unet", "own") == 0
    assert run("info", bkc, "--verify") == 0
    capsys.readouterr()
    assert run("decode", bkc, "-o", out, "-f") == 5
    assert "needs a pretrained vae" in capsys.readouterr().err
    assert run("encode", tmp_path / "a.png", "-f", "--unet", "own") == 2


def test_shipped_provenance(bundle: Bundle) -> None:
    assert bundle.header["parts"]["vae"] == "pretrained" and bundle.header["stride"] == 32
    assert bundle.path.stat().st_size <= 16_000_000
    provenance = json.dumps(bundle.header["provenance"])
    assert "bkcodec train" in provenance and "../" not in provenance
    rho = bundle.networks["correlation"]
    assert rho.dtype == np.int16 and (np.diff(rho) >= 0).all() and 0 < rho[0] < rho[-1] < 1000


def test_a_part_goes_where_the_work_is_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    part, moves = torch.nn.Linear(1, 1), []
    monkeypatch.setattr(part, "to", moves.append)
    with placed(part, torch.device("cpu")):
        assert not moves
    with pytest.raises(RuntimeError), placed(part, torch.device("cuda")):
        raise RuntimeError("out of memory")
    assert moves == [torch.device("cuda"), torch.device("cpu")]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_parts_take_turns_on_a_small_gpu(
    monkeypatch: pytest.MonkeyPatch, folder: Path, own_unet: Codec, small: Image.Image
) -> None:
    monkeypatch.setattr(assembly, "SMALL_GPU", float("inf"))
    assembly._assemble.cache_clear()
    codec = Codec("bk-sdm", "cuda", Backbone(str(folder)))
    assert next(codec.model.backbone.parameters()).device.type == "cpu"
    data = own_unet.encode(small)
    assert codec.decode(data).size == small.size
    assert next(codec.model.vae.parameters()).device.type == "cpu"
