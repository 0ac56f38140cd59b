"""Training in Stable Diffusion's latent space, and fitting to a pretrained U-Net."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers_models import save_bk_sdm, save_kl_vae, tiny_vae
from PIL import Image
from safetensors.torch import load_file, save_file

import bkcodec
from bkcodec.bundle import load_bundle
from bkcodec.codec import Codec
from bkcodec.errors import InputError, UnsupportedError, UsageError
from bkcodec.models import space
from bkcodec.models.sd.folder import load_unet, load_vae
from bkcodec.options import Backbone, DecodeOptions
from bkcodec.train import start, trainer
from bkcodec.train.data import Photos
from bkcodec.train.latents import Latents
from bkcodec.train.options import TrainOptions
from bkcodec.train.start import Parts, load_init
from bkcodec.train.trainer import WARMUP_STEPS, Trainer

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = ["--batch-size", "2", "--image-size", "192", "--diffusion-steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def _few_prior_steps() -> Iterator[None]:
    before = start.PRIOR_STEPS, trainer.REPORT_STEPS, start.MEASURED_BATCHES
    start.PRIOR_STEPS, trainer.REPORT_STEPS, start.MEASURED_BATCHES = 10, 1, 2
    yield
    start.PRIOR_STEPS, trainer.REPORT_STEPS, start.MEASURED_BATCHES = before


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bk_sdm(tmp_path_factory.mktemp("bk-sdm"))


@pytest.fixture(scope="module")
def photos(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    lake.save(path / "a.png")
    lake.transpose(Image.Transpose.ROTATE_90).save(path / "b.png")
    return path


def test_latents_are_made_once(photos: Path, folder: Path, tmp_path: Path) -> None:
    vae, path = load_vae(folder), tmp_path / "latents.safetensors"
    pictures = Photos(photos, 192)
    data = Latents(pictures, vae, path, 192)
    assert len(data) == 2 and len(data.planes) == 4  # each as it is, and reduced
    assert data.planes[0].shape == (4, 64, 96)
    batch = data.batch((0, 1, 0), 3, 200)
    assert batch.shape == (3, 4, 24, 24) and torch.equal(batch, data.batch((0, 1, 0), 3, 200))
    x = pictures.images[0][None].float() / 255
    assert torch.allclose(data.planes[0].float(), vae.encode(x)[0], atol=2e-3)
    written = path.stat().st_mtime_ns
    Latents(pictures, vae, path, 192)
    assert path.stat().st_mtime_ns == written
    with pytest.raises(InputError, match="another VAE"):
        Latents(pictures, load_vae(save_kl_vae(tmp_path / "kl")), path, 192)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        Latents(pictures, vae, path, 192)


def test_a_bundle_is_trained_and_exported(
    run: Callable[..., int], photos: Path, folder: Path, small: Image.Image, tmp_path: Path
) -> None:
    first, prior, bundle = tmp_path / "run", tmp_path / "prior", tmp_path / "mine.safetensors"
    latents = tmp_path / "latents.safetensors"
    common = [
        "train",
        "--data",
        photos,
        "--val",
        photos,
        "--vae",
        folder / "vae",
        "--latents",
        latents,
        "--pretrained-vae",
        *SMALL,
    ]
    assert run(*common, "-o", first, "--N", 16, "--max-steps", 3, "--dry-run") == 0
    assert not list(tmp_path.iterdir())
    assert run(*common, "-o", first, "--N", 16, "--max-steps", 3, "--lr", "1e-3") == 0
    assert latents.is_file() and "y-mse" in (first / "training.log").read_text()
    more = ["-o", prior, "--phase", "prior", "--init-from", first, "--max-steps", 2]
    assert run(*common, *more) == 0
    export = ["train", "--export", prior, "--data", photos, "-o", bundle, "--name", "mine"]
    assert run(*export) == 2  # it needs the VAE
    assert run(*export, "--vae", folder) == 0
    loaded = load_bundle(bundle)
    assert loaded.header["parts"]["vae"] == "pretrained" and loaded.header["stride"] == 32
    assert not any(k.startswith(("vae.", "backbone.")) for k in loaded.networks)
    assert loaded.networks["correlation"].dtype == np.int16
    codec = Codec(bundle, "cpu", Backbone(vae=str(folder)))
    data = codec.encode(small)
    assert codec.decode(data).size == small.size
    assert bkcodec.info(data, True, str(bundle))["symbols_sha256"]


def fine_tune(
    folder: Path, photos: Path, tmp_path: Path, adapter: str, steps: int
) -> tuple[Trainer, list[float]]:
    options = TrainOptions(
        phase="denoiser",
        batch_size=4,
        image_size=192,
        lr=1e-2,
        max_steps=1000,
        adapter=adapter,
        unroll_steps=steps,
        lora_rank=4,
    )
    init, parts = load_init("bk-sdm"), Parts(load_vae(folder), load_unet(folder))
    assert parts.vae is not None
    data = Latents(Photos(photos, 192), parts.vae, tmp_path / "latents.safetensors", 192)
    val = Photos(photos, 320)
    trainer = Trainer(options, init.config, data, val, tmp_path, Accelerator(cpu=True), init, parts)
    trainer.begin()
    trainer.prepare()
    batch = data.batch((0, 0, 0), 4, 192)
    trainer.step = WARMUP_STEPS  # at the full learning rate, with the same noise each time
    losses = []
    for _ in range(16):
        losses.append(trainer.advance(batch)["loss"])
        trainer.step = WARMUP_STEPS
    return trainer, losses


@pytest.mark.parametrize(("adapter", "steps"), [("lora", 1), ("none", 1), ("lora", 2)])
def test_fine_tuning_leaves_the_frozen_parts_alone(
    folder: Path, photos: Path, tmp_path: Path, adapter: str, steps: int
) -> None:
    if adapter == "lora":
        pytest.importorskip("peft")
    before = {k: v.clone() for k, v in load_unet(folder).unet.state_dict().items()}
    bundle = load_init("bk-sdm").model
    trainer, losses = fine_tune(folder, photos, tmp_path, adapter, steps)
    assert losses[-1] < 0.98 * losses[0]
    assert trainer.model.backbone is not None
    after = trainer.model.backbone.unet.state_dict()
    for key, value in before.items():
        layer, name = key.rsplit(".", 1)
        key = key if key in after else f"{layer}.base_layer.{name}"
        assert torch.equal(after[key], value)
    added = [k for k in after if "lora_" in k]
    assert bool(added) == (adapter == "lora")
    for key, value in trainer.model.own_state().items():
        if key in bundle and not key.startswith("h_s.correction."):
            assert torch.equal(value, bundle[key].to(value)), key
    assert (trainer.model.h_s.get_submodule("correction").weight != 0).any()


def test_a_lora_travels_in_the_bundle(
    run: Callable[..., int], photos: Path, folder: Path, small: Image.Image, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    tuned = tmp_path / "tuned.safetensors"
    common = [
        "train",
        "--data",
        photos,
        "--val",
        photos,
        "--bk-sdm",
        folder,
        "--pretrained-vae",
        "--pretrained-unet",
        "--phase",
        "denoiser",
        "--init-from",
        "bk-sdm",
        *SMALL,
    ]
    assert run(*common, "-o", tmp_path / "run", "--max-steps", 2, "--lr", "1e-2") == 0
    assert run(*common, "-o", tmp_path / "run", "--max-steps", 3, "--lr", "1e-2", "--resume") == 0
    export = ["train", "--export", tmp_path / "run", "--data", photos, "-o", tuned]
    assert run(*export, "--name", "tuned", "--bk-sdm", folder) == 0
    loaded = load_bundle(tuned)
    backbone = Backbone(str(folder))
    before, after = Codec("bk-sdm", "cpu", backbone), Codec(tuned, "cpu", backbone)
    assert before.bundle.fingerprint == after.bundle.fingerprint  # files keep decoding
    data = before.encode(small)
    assert after.encode(small) == data
    one, other = (np.asarray(c.decode(data)) for c in (before, after))
    assert (one != other).any()
    own = Backbone(str(folder), unet="own")
    one, other = (np.asarray(Codec(m, "cpu", own).decode(data)) for m in ("bk-sdm", tuned))
    assert (one == other).all()
    assert any(k.startswith("lora.") for k in loaded.networks) and "context" in loaded.networks
    assert (
        run(*common, "-o", tmp_path / "more", "--max-steps", 1, "--init-from", tuned) == 2
    )  # its LoRA would be lost
    with pytest.raises(UnsupportedError, match="another U-Net"):
        wide = save_bk_sdm(tmp_path / "wide", cross_attention_dim=24)
        Codec(tuned, "cpu", Backbone(str(wide))).decode(data, DecodeOptions())
    path = Path(shutil.copytree(folder, tmp_path / "other")) / "unet" / WEIGHTS
    state = load_file(path)  # the same shapes, other weights
    save_file({k: v + 1 if k == "conv_in.weight" else v for k, v in state.items()}, path)
    with pytest.raises(UnsupportedError, match="fitted to another U-Net"):
        Codec(tuned, "cpu", Backbone(str(tmp_path / "other")))


def test_a_custom_vae_learns_the_latents(
    run: Callable[..., int],
    photos: Path,
    folder: Path,
    small: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fourth combination: custom VAE, with and without a pretrained U-Net."""
    monkeypatch.setattr(space, "custom_autoencoder", tiny_vae)  # the real one is slow
    own = tmp_path / "own.safetensors"
    common = [
        "train",
        "--data",
        photos,
        "--val",
        photos,
        "--vae",
        folder,
        "--pretrained-vae",
        "--phase",
        "vae",
        "--init-from",
        "bk-sdm",
        *SMALL,
    ]
    assert run(*common, "-o", tmp_path / "run", "--max-steps", 2) == 0
    export = ["train", "--export", tmp_path / "run", "--data", photos, "-o", own, "--name", "own"]
    assert run(*export, "--vae", folder) == 2  # it has one
    assert run(*export) == 0
    assert load_bundle(own).header["parts"]["vae"] == "custom"
    alone, with_unet = Codec(own, "cpu"), Codec(own, "cpu", Backbone(str(folder)))
    data = alone.encode(small)
    one, other = (np.asarray(codec.decode(data)) for codec in (alone, with_unet))
    assert one.shape == other.shape and (one != other).any()
    borrowed = Codec("bk-sdm", "cpu", Backbone(vae=str(folder)))
    assert borrowed.decode(data).size == small.size  # the same files, whatever the VAE
    assert run(*common, "-o", tmp_path / "again", "--max-steps", 1, "--init-from", own) == 2
    with pytest.raises(UsageError, match="VAE of its own"):
        Codec(own, "cpu", Backbone(vae=str(folder)))
