from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import bkcodec
from bkcodec import bundle as bundle_module
from bkcodec.bundle import Bundle, find_bundle, load_bundle, save_bundle
from bkcodec.codec import Codec
from bkcodec.coding.assembly import load_model
from bkcodec.errors import UnsupportedError
from bkcodec.models.blocks import interpolate_rows
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig
from bkcodec.models.dct import dct_basis
from bkcodec.models.denoising import beta_schedule, make_scheduler, philox_noise


@pytest.fixture(scope="module")
def untrained() -> BkSdmCompression:
    torch.manual_seed(0)
    return bkcodec.create_bk_sdm_compression_model(
        N=16, M=48, use_pretrained_vae=False, use_pretrained_unet=False
    )


@pytest.fixture(scope="module")
def x(lake: Image.Image) -> torch.Tensor:
    crop = np.asarray(lake.crop((300, 200, 400, 260))).copy()
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255  # [1, 3, 60, 100]


def test_the_dct_is_orthonormal() -> None:
    basis = dct_basis(768)
    assert torch.allclose(basis @ basis.t(), torch.eye(768), atol=1e-4)
    flat = torch.ones(768)
    assert (basis[:3] @ flat).abs().max() == pytest.approx(768**0.5, rel=1e-4)


def test_forward(untrained: BkSdmCompression, x: torch.Tensor) -> None:
    with torch.no_grad():
        out = untrained(x, 0.9)
    assert out["x_hat"].shape == x.shape
    assert out["y"].shape == out["z"].shape == out["y_hat"].shape == (1, 48, 4, 7)
    likelihood = out["likelihoods"]["z"]
    assert likelihood.shape == out["z"].shape
    assert (likelihood > 0).all() and (likelihood <= 1).all()
    assert (out["symbols"] == out["symbols"].round()).all()


def test_an_untrained_model_is_a_transform_coder(
    untrained: BkSdmCompression, x: torch.Tensor
) -> None:
    packed = untrained.compress(x, 0.9)
    assert set(packed) == {"strings", "shape", "quality"} and packed["shape"] == (4, 7)
    untrained.diffusion_steps = 1
    decoded = untrained.decompress(packed["strings"], packed["shape"], 0.9)["x_hat"][..., :60, :100]
    assert -10 * torch.log10((decoded - x).square().mean()) > 22
    with torch.no_grad():
        assert torch.allclose(decoded, untrained(x, 0.9)["x_hat"].clamp(0, 1), atol=1e-4)


def test_strings_hold_what_the_likelihoods_say(
    untrained: BkSdmCompression, x: torch.Tensor
) -> None:
    with torch.no_grad():
        bits = -untrained(x, 0.5)["likelihoods"]["z"].double().log2().sum().item()
    (string,) = untrained.compress(x, 0.5)["strings"][0]
    assert bits / 8 <= len(string) <= 1.005 * bits / 8 + 8


def test_what_loops_written_for_compressai_call(
    untrained: BkSdmCompression, x: torch.Tensor
) -> None:
    model = untrained
    assert model.update() is False and model.update(None, force=True) is False
    loss = model.aux_loss()
    loss.backward()
    assert loss.ndim == 0 and loss == 0
    for position in (0.1, 0.0125, 0.9):
        packed = model.compress(x, position)
        assert packed["quality"] == pytest.approx(100 * position)
        decoded = model.decompress(**packed)["x_hat"]  # it needs to be told nothing else
        known = model.decompress(packed["strings"], packed["shape"], position)["x_hat"]
        assert torch.allclose(decoded, known, atol=1e-6)


def test_batches_are_coded_image_by_image(untrained: BkSdmCompression, x: torch.Tensor) -> None:
    both = untrained.compress(torch.cat([x, x.flip(-1)]), 0.5)
    assert both["strings"][0][0] == untrained.compress(x, 0.5)["strings"][0][0]
    assert both["strings"][0][0] != both["strings"][0][1]


def test_several_steps_in_the_factory(x: torch.Tensor) -> None:
    model = bkcodec.create_bk_sdm_compression_model(None, 16, 48, 3, False, False)
    packed = model.compress(x)
    assert model.decompress(packed["strings"], packed["shape"])["x_hat"].shape == (1, 3, 64, 112)


@pytest.mark.parametrize("depths", [((3, 4), (4, 4)), ((5, 4), (7, 4)), ((1, 1), (2, 1))])
def test_nothing_matters_beyond_the_reach(depths: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """What tiles overlap by: a change at the left edge moves nothing further away than that."""
    torch.manual_seed(0)
    config = ModelConfig(N=8, M=8, encoder_depths=depths[0], decoder_depths=depths[1])
    model = BkSdmCompression(config)
    for parameter in model.parameters():  # no branch is zero any more
        torch.nn.init.normal_(parameter, std=0.3)
    reach = model.space.reach(model)
    x = torch.rand(1, 3, 32, 16 * (2 * reach + 4))
    other = x.clone()
    other[..., :16] = 1 - other[..., :16]
    y_hat = torch.rand(1, 8, 2, 2 * reach + 4)
    changed = y_hat.clone()
    changed[..., :1] += 1
    size = (32, x.shape[-1])
    with torch.no_grad():
        moved = (model.analyse(x)[1] != model.analyse(other)[1]).any(dim=2)[0].any(dim=0)
        pictures = [model.reconstruct(y, size, 1.0) for y in (y_hat, changed)]
    seen = (pictures[0] != pictures[1]).any(dim=2)[0].any(dim=0).reshape(-1, 16).any(dim=1)
    for reached in (moved, seen):
        last = int(reached.nonzero().max())
        assert 0 < last <= reach


def test_without_tables_there_are_no_strings(x: torch.Tensor) -> None:
    model = BkSdmCompression(ModelConfig(N=16, M=24))
    with pytest.raises(ValueError, match="without a prior"):
        model.compress(x)
    assert model(x)["likelihoods"] == {}


def test_interpolation_hits_the_anchors() -> None:
    table = torch.tensor([[0.0], [10.0], [40.0]])
    quality = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 2.0])
    assert interpolate_rows(table, quality)[:, 0].tolist() == [0, 5, 10, 25, 40, 40]


def test_steps_shrink_as_quality_grows(codec: Codec) -> None:
    steps = np.log(codec.model.quantiser.exact_steps()).mean(axis=1)
    assert (np.diff(steps) < 0).all()


@pytest.mark.parametrize("name", ["ddim", "dpm++", "euler", "lcm"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "scaled_linear"])
def test_schedulers_start_where_they_are_told(name: str, schedule: str) -> None:
    scheduler = make_scheduler(name, beta_schedule(schedule, 1000), 400)
    scheduler.set_timesteps(4)
    assert int(scheduler.timesteps[0]) == 400 and len(scheduler.timesteps) == 4


def test_noise_is_pinned() -> None:
    noise = philox_noise((1, 2, 2, 2), 7, 0, torch.device("cpu"))
    assert noise.flatten()[:3].tolist() == pytest.approx(PINNED, abs=1e-6)
    assert not torch.equal(noise, philox_noise((1, 2, 2, 2), 7, 1, torch.device("cpu")))


PINNED = [-0.2933390140533447, 1.703830599784851, 1.5391918420791626]


def test_the_schedule_in_the_model_is_diffusers(codec: Codec) -> None:
    quality = torch.tensor([0.0, 0.5, 1.0])
    c = codec.model.config
    middle = round((c.t_coarsest + c.t_finest) / 2)
    assert codec.model.denoiser.start(quality).tolist() == [c.t_coarsest, middle, c.t_finest]


@pytest.fixture
def lite() -> Bundle:
    return load_bundle(find_bundle("lite"))


def test_bundles_round_trip(lite: Bundle, tmp_path: Path) -> None:
    parts = lite.header, lite.networks, lite.prior, lite.integers
    again = save_bundle(tmp_path / "b.safetensors", *parts)
    assert again.fingerprint == lite.fingerprint and again.header == lite.header
    assert again.integers.keys() == lite.integers.keys()


def test_decoder_networks_do_not_change_the_fingerprint(lite: Bundle, tmp_path: Path) -> None:
    def stored(**changed: np.ndarray) -> bytes:
        parts = [dict(lite.networks), dict(lite.integers)]
        for name, array in changed.items():
            key = name.replace("__", ".")
            (part,) = (part for part in parts if key in part)
            part[key] = array
        path = tmp_path / "b.safetensors"
        return save_bundle(path, lite.header, parts[0], lite.prior, parts[1]).fingerprint

    head = lite.integers["vae.decoder.head.weight"]
    assert stored(vae__decoder__head__weight=head // 2) == lite.fingerprint
    step = lite.networks["quantiser.log_step"]
    assert stored(quantiser__log_step=step + 0.1) != lite.fingerprint


@pytest.mark.parametrize("fault", ["empty", "header", "version", "cut", "part", "shape"])
def test_bad_bundles_are_refused(lite: Bundle, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "bad.safetensors"
    header, networks = dict(lite.header), dict(lite.networks)
    if fault == "version":
        header["version"] = 2
    if fault == "part":
        header["parts"] = {"vae": "borrowed"}
    if fault == "shape":
        header["model"] = header["model"] | {"N": 64}

    arrays = {f"net.{k}": v for k, v in networks.items()}
    arrays |= lite.prior.bundled()

    save_file(arrays, path, {"bkcodec": json.dumps(header)})
    data = path.read_bytes()
    damaged = {"empty": b"", "header": b"\xff" * 100, "cut": data[: len(data) // 2]}
    path.write_bytes(damaged.get(fault, data))
    with pytest.raises(UnsupportedError):
        load_model(path, "cpu")


def test_a_bundle_that_claims_wide_networks_is_refused_before_they_are_built(
    tmp_path: Path, lite: Bundle
) -> None:
    with safe_open(lite.path, "np") as file:
        header = json.loads(file.metadata()["bkcodec"])
        arrays = {k: file.get_tensor(k) for k in file.keys() if not k.startswith("int.")}  # noqa: SIM118
    header["model"]["N"] = 4096
    path = tmp_path / "wide.safetensors"
    save_file(arrays, path, {"bkcodec": json.dumps(header)})
    with pytest.raises(UnsupportedError, match="the header wants"):
        load_model(path, "cpu")
    header["model"]["M"] = 7
    save_file(arrays, path, {"bkcodec": json.dumps(header)})
    with pytest.raises(UnsupportedError, match="channels, not 7"):
        load_bundle(path)


def test_a_changed_shipped_bundle_is_refused(monkeypatch: pytest.MonkeyPatch, lite: Bundle) -> None:

    info = bundle_module.shipped_bundles()[0]
    monkeypatch.setattr(bundle_module, "shipped_bundles", lambda: (replace(info, sha256="0" * 64),))
    bundle_module._load.cache_clear()
    with pytest.raises(UnsupportedError, match="SHA-256"):
        load_bundle(info.path)
