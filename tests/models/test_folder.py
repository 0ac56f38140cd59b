"""Directories in diffusers layout: what loads, and what each fault is called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers_models import (
    CONTEXT,
    save_bk_sdm,
    save_kl_vae,
    save_zero_snr_scheduler,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from bkcodec.codec import Codec
from bkcodec.errors import UnsupportedError
from bkcodec.models.sd.folder import load_unet, load_vae, read_schedule
from bkcodec.options import Backbone, EncodeOptions

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bk_sdm(tmp_path_factory.mktemp("bk-sdm"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A directory of its own to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_old_names_of_attention_are_understood(tmp_path: Path) -> None:
    kl = save_kl_vae(tmp_path / "kl")
    new = load_vae(kl).state_dict()
    names = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }
    state = {}
    for key, value in load_file(kl / WEIGHTS).items():
        for modern, old in names.items():
            key = key.replace(modern, old)
        state[key] = value
    assert any(".query." in key for key in state)
    save_file(state, kl / WEIGHTS)
    assert all(torch.equal(v, new[k]) for k, v in load_vae(kl).state_dict().items())


def test_half_precision_and_shards(copy: Path) -> None:
    state = load_file(copy / "unet" / WEIGHTS)
    names = sorted(state)
    parts = (names[::2], names[1::2])
    index = {}
    for i, part in enumerate(parts):
        save_file({k: state[k].bfloat16() for k in part}, copy / "unet" / f"part-{i}.safetensors")
        index |= {k: f"part-{i}.safetensors" for k in part}
    (copy / "unet" / WEIGHTS).unlink()
    (copy / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    vae = load_file(copy / "vae" / WEIGHTS)
    (copy / "vae" / WEIGHTS).unlink()
    save_file(
        {k: v.half() for k, v in vae.items()},
        copy / "vae" / "diffusion_pytorch_model.fp16.safetensors",
    )
    assert next(load_unet(copy).unet.parameters()).dtype == torch.bfloat16
    assert next(load_vae(copy).parameters()).dtype == torch.float16
    photo = Image.new("RGB", (40, 40), "teal")
    codec = Codec("bk-sdm", "cpu", Backbone(str(copy)))
    assert codec.decode(codec.encode(photo)).size == (40, 40)


def test_families_load_by_their_configs(tmp_path: Path) -> None:
    """SD 2.1: wider context, v-prediction; SD-Turbo: zero terminal SNR."""
    second = save_bk_sdm(
        tmp_path / "two",
        "v_prediction",
        cross_attention_dim=24,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
    )
    unet = load_unet(second)
    assert unet.prediction == "v_prediction" and unet.context.shape == (77, 24)
    save_zero_snr_scheduler(second / "scheduler")
    unet = load_unet(second)
    assert unet.alphas_cumprod[-1] < 1e-6
    assert unet.alphas_cumprod[unet.start_timestep(0.0)] >= 1e-3
    codec = Codec("bk-sdm", "cpu", Backbone(str(second)))
    assert codec.decode(codec.encode(Image.new("RGB", (32, 32)), EncodeOptions(quality=0)))


def spoil(config: str, **values: object) -> Callable[[Path], None]:
    def change(copy: Path) -> None:
        path = copy / config
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def without_key(copy: Path) -> None:
    state = load_file(copy / "unet" / WEIGHTS)
    del state["conv_in.weight"]
    save_file(state, copy / "unet" / WEIGHTS)


def with_other_shape(copy: Path) -> None:
    state = load_file(copy / "unet" / WEIGHTS)
    save_file(state | {"conv_in.bias": torch.zeros(3)}, copy / "unet" / WEIGHTS)


def with_foreign_key(copy: Path) -> None:
    state = load_file(copy / "vae" / WEIGHTS)
    save_file(state | {"spare": torch.zeros(3)}, copy / "vae" / WEIGHTS)


def with_integers(copy: Path) -> None:
    state = load_file(copy / "unet" / WEIGHTS)
    save_file(state | {"conv_in.bias": torch.zeros(8, dtype=torch.int8)}, copy / "unet" / WEIGHTS)


def only_a_pickle(copy: Path) -> None:
    (copy / "unet" / WEIGHTS).rename(copy / "unet" / "diffusion_pytorch_model.bin")


def cut(copy: Path) -> None:
    path = copy / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: shutil.rmtree(d / "vae"), r"vae/config\.json: missing"),
    (lambda d: shutil.rmtree(d / "scheduler"), r"scheduler_config\.json: cannot be read"),
    (lambda d: (d / "unet" / "config.json").write_text("{"), r"unet/config\.json: cannot be read"),
    (lambda d: (d / "unet" / "config.json").write_text("[]"), r"unet/config\.json: not a JSON"),
    (spoil("unet/config.json", _class_name="Transformer2DModel"), "a Transformer2DModel"),
    (spoil("unet/config.json", in_channels=9), "in_channels is 9, 4 is needed"),
    (spoil("unet/config.json", addition_embed_type="text_time"), "addition_embed_type is text"),
    (spoil("unet/config.json", cross_attention_dim=[8, 16]), "cross_attention_dim"),
    (spoil("unet/config.json", cross_attention_dim=32), r"has shape \(\d+, 16\), its config"),
    (spoil("unet/config.json", down_block_types=["Nonsense"]), r"unet/config\.json: "),
    (spoil("vae/config.json", _class_name="VQModel"), "a VQModel, not AutoencoderKL"),
    (spoil("vae/config.json", latent_channels=16), "latent_channels is 16, 4 is needed"),
    (spoil("scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type flow"),
    (spoil("scheduler/scheduler_config.json", beta_schedule="steep"), "steep"),
    (spoil("vae/config.json", scaling_factor=0), "scaling_factor is 0"),
    (spoil("vae/config.json", scaling_factor="x"), "scaling_factor is x"),
    (spoil("vae/config.json", upsampling_scaling_factor=3), "upsampling_scaling_factor is 3"),
    (spoil("unet/config.json", num_class_embeds=10), "num_class_embeds is 10"),
    (spoil("unet/config.json", norm_num_groups=0), r"unet/config\.json: "),
    (spoil("scheduler/scheduler_config.json", num_train_timesteps=0), "noise schedule"),
    (spoil("scheduler/scheduler_config.json", trained_betas=[[0.1, 0.2]]), "noise schedule"),
    (spoil("scheduler/scheduler_config.json", trained_betas=[0.1, 2.0, 0.1]), "noise schedule"),
    (without_key, r"missing in its weights: conv_in\.weight"),
    (with_foreign_key, "unknown in its weights: spare"),
    (with_other_shape, r"conv_in\.bias has shape \(3,\), its config says \(8,\)"),
    (with_integers, r"conv_in\.bias holds torch\.int8"),
    (only_a_pickle, r"safetensors: missing\. The \.bin file"),
    (cut, r"safetensors: cannot be read"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[m for _, m in FAULTS])
def test_faults_are_named(copy: Path, fault: Callable[[Path], object], message: str) -> None:
    fault(copy)
    with pytest.raises(UnsupportedError, match=message):
        Codec("bk-sdm", "cpu", Backbone(str(copy)))


def test_the_schedule_is_stable_diffusions(folder: Path) -> None:
    betas, prediction = read_schedule(folder / "scheduler")
    assert prediction == "epsilon" and len(betas) == 1000
    assert (float(betas[0]), float(betas[-1])) == pytest.approx((0.00085, 0.012), rel=1e-4)


def test_the_empty_prompt_is_the_context(copy: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        hidden_size=CONTEXT, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.CLIPTextModel(config).save_pretrained(copy / "text_encoder")
    context = load_unet(copy).context
    assert context.shape == (77, CONTEXT) and context.abs().sum() > 0
    assert load_unet(copy).context.equal(context)
    weights = copy / "text_encoder" / "model.safetensors"
    state = {k.removeprefix("text_model."): v for k, v in load_file(weights).items()}
    for prefix in ("", "text_model."):  # newer and older files
        save_file({prefix + k: v for k, v in state.items()}, weights, {"format": "pt"})
        assert load_unet(copy).context.equal(context)
    save_file({"other": torch.zeros(1)}, weights, {"format": "pt"})
    with pytest.raises(UnsupportedError, match="text_encoder: missing in its weights"):
        load_unet(copy)
