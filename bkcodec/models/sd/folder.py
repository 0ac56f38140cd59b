"""Pretrained parts of Stable Diffusion's family, from directories in diffusers layout.

```
DIR/vae/        config.json, diffusion_pytorch_model.safetensors    AutoencoderKL | AutoencoderTiny
DIR/unet/       config.json, diffusion_pytorch_model.safetensors    UNet2DConditionModel
DIR/scheduler/  scheduler_config.json
DIR/text_encoder/  config.json, model.safetensors                   optional: the empty prompt
```

A part's directory may also be given itself. Only safetensors files are read; a file may have the
infix ``.fp16`` or come in shards with an index. What is wrong is named: file, key, shape.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bkcodec.errors import UnsupportedError
from bkcodec.models.sd.parts import CONTEXT_TOKENS, LATENT_STRIDE, SdUNet, SdVae

STEM = "diffusion_pytorch_model"
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
# Names of the VAE's attention in files from before diffusers 0.16.
_OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
_BOS, _EOS = 49406, 49407  # CLIP's tokens around a text; SD 1.x pads with the last
MAX_TIMESTEPS = 10_000
_NAMED = 3  # keys that an error lists

# What diffusers raises for configurations that make no sense.
_BUILDING = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)

State = dict[str, Tensor]


def load_vae(directory: Path) -> SdVae:
    """The VAE of a directory, in the precision of its file.

    Raises:
        UnsupportedError: a file is missing or damaged, is of another class, or does not fit.
    """
    folder = part_folder(directory, "vae")
    config = _read_config(folder / "config.json")
    kind = config.get("_class_name")
    if kind not in AUTOENCODERS:
        raise UnsupportedError(
            f"{folder / 'config.json'}: a {kind}, not {' or '.join(AUTOENCODERS)}"
        )
    _expect(
        folder,
        config,
        latent_channels=4,
        in_channels=3,
        out_channels=3,
        upsampling_scaling_factor=2,
    )
    autoencoder = _build(kind, config, folder)
    sizes: Any = autoencoder.config
    key = "block_out_channels" if kind == "AutoencoderKL" else "encoder_block_out_channels"
    if 2 ** (len(sizes[key]) - 1) != LATENT_STRIDE:
        raise UnsupportedError(f"{folder}: a VAE that does not reduce by {LATENT_STRIDE}")
    for name in ("scaling_factor", "shift_factor"):
        value = sizes.get(name) or 0.0
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UnsupportedError(f"{folder / 'config.json'}: {name} is {value}")
    if not sizes.scaling_factor:
        raise UnsupportedError(f"{folder / 'config.json'}: scaling_factor is 0")
    state = {_modern(k): v for k, v in read_state(folder, STEM).items()}
    _fill(autoencoder, state, folder)
    return SdVae(autoencoder)


def load_unet(directory: Path) -> SdUNet:
    """The U-Net of a directory, with the noise schedule that it was trained on.

    Its context is that of the empty prompt where there is a text encoder (and transformers is
    installed), else zero.

    Raises:
        UnsupportedError: as ``load_vae``; or a U-Net that needs more than a latent and a context.
    """
    folder = part_folder(directory, "unet")
    config = _read_config(folder / "config.json")
    if config.get("_class_name") != "UNet2DConditionModel":
        raise UnsupportedError(
            f"{folder / 'config.json'}: a {config.get('_class_name')}, not UNet2DConditionModel"
        )
    _expect(
        folder,
        config,
        in_channels=4,
        out_channels=4,
        class_embed_type=None,
        addition_embed_type=None,
        encoder_hid_dim=None,
        num_class_embeds=None,
    )
    width = config.get("cross_attention_dim")
    if not isinstance(width, int):
        raise UnsupportedError(f"{folder / 'config.json'}: cross_attention_dim {width}")
    if folder == directory:
        raise UnsupportedError(f"{folder}: name the directory that has it and its scheduler/")
    betas, prediction = read_schedule(directory / "scheduler")
    unet = _build("UNet2DConditionModel", config, folder)
    _fill(unet, read_state(folder, STEM), folder)
    context = _empty_prompt(directory / "text_encoder", width)
    return SdUNet(unet, betas, prediction, context)


def has_unet(directory: Path) -> bool:
    """Whether a directory brings a U-Net along."""
    return (directory / "unet").is_dir()


def part_folder(directory: Path, part: str) -> Path:
    """DIR/part, or DIR itself where that is the part.

    Raises:
        UnsupportedError: neither.
    """
    if not directory.is_dir():
        raise UnsupportedError(f"{directory}: not a directory")
    inside = directory / part
    folder = inside if inside.is_dir() else directory
    if not (folder / "config.json").is_file():
        raise UnsupportedError(f"{inside / 'config.json'}: missing (diffusers layout is needed)")
    return folder


def read_schedule(folder: Path) -> tuple[NDArray[np.float32], str]:
    """Betas [timesteps] and kind of prediction of a scheduler's directory.

    Raises:
        UnsupportedError: missing, or unlike what diffusers writes.
    """
    path = folder / "scheduler_config.json"
    config = _read_config(path)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise UnsupportedError(f"{path}: prediction_type {prediction}")
    from diffusers import DDIMScheduler

    names = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    settings = {k: config[k] for k in names if config.get(k) is not None}
    try:
        betas: NDArray[np.float32] = DDIMScheduler(**settings).betas.float().numpy()
    except (NotImplementedError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UnsupportedError(f"{path}: {error}") from error
    if betas.ndim != 1 or not 1 <= len(betas) <= MAX_TIMESTEPS or not (betas >= 0).all():
        raise UnsupportedError(f"{path}: a noise schedule of shape {betas.shape}, or below 0")
    if not (betas[:-1] < 1).all() or not betas[-1] <= 1:
        raise UnsupportedError(f"{path}: a noise schedule that reaches 1 too early")
    return betas, prediction


def read_state(folder: Path, stem: str) -> State:
    """All tensors of a part: one safetensors file, its fp16 variant, or shards with an index.

    Raises:
        UnsupportedError: none of them is there (pickles are not read), or one is damaged.
    """
    for name in (stem, f"{stem}.fp16"):
        index = folder / f"{name}.safetensors.index.json"
        if index.is_file():
            weight_map = _read_config(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise UnsupportedError(f"{index}: no weight_map")
            shards = sorted({Path(str(shard)).name for shard in weight_map.values()})
            return {k: v for shard in shards for k, v in _load(folder / shard).items()}
        if (folder / f"{name}.safetensors").is_file():
            return _load(folder / f"{name}.safetensors")
    hint = ""
    if any(folder.glob("*.bin")):
        hint = " The .bin file there is a pickle, which is never read; docs/bk-sdm.md converts it."
    raise UnsupportedError(f"{folder / stem}.safetensors: missing.{hint}")


def _load(path: Path) -> State:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UnsupportedError(f"{path}: cannot be read ({error})") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        summary = getattr(error, "strerror", None) or str(error)
        raise UnsupportedError(f"{path}: cannot be read ({summary})") from error
    if not isinstance(config, dict):
        raise UnsupportedError(f"{path}: not a JSON object")
    return config


def _expect(folder: Path, config: dict[str, Any], **values: object) -> None:
    for key, value in values.items():
        actual = config.get(key, value)
        if actual != value:
            raise UnsupportedError(
                f"{folder / 'config.json'}: {key} is {actual}, {value} is needed"
            )


def _build(kind: str, config: dict[str, Any], folder: Path) -> nn.Module:
    """A network without weights, from what its class knows of a configuration."""
    import inspect

    import diffusers

    network = getattr(diffusers, kind)
    parameters = inspect.signature(network.__init__).parameters
    try:
        with torch.device("meta"):
            built: nn.Module = network(**{k: v for k, v in config.items() if k in parameters})
    except _BUILDING as error:
        summary = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(f"{folder / 'config.json'}: {summary}") from error
    return built


def _fill(network: nn.Module, state: State, folder: Path) -> None:
    """Give a network its weights: every key, nothing else, all shapes right."""
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    missing, foreign = sorted(expected.keys() - state), sorted(state.keys() - expected)
    for what, keys in (("missing", missing), ("unknown", foreign)):
        if keys:
            more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
            raise UnsupportedError(
                f"{folder}: {what} in its weights: {', '.join(keys[:_NAMED])}{more}"
            )
    for key, shape in expected.items():
        if tuple(state[key].shape) != shape:
            raise UnsupportedError(
                f"{folder}: {key} has shape {tuple(state[key].shape)}, its config says {shape}"
            )
        if not state[key].is_floating_point():
            raise UnsupportedError(f"{folder}: {key} holds {state[key].dtype}")
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)


def _modern(key: str) -> str:
    if ".attentions." in key:
        for old, new in _OLD_NAMES.items():
            key = key.replace(old, new)
    return key


def _empty_prompt(folder: Path, width: int) -> Tensor:
    """[77, width]: what the text encoder makes of no text, or zero without one."""
    nothing = torch.zeros(CONTEXT_TOKENS, width)
    if not (folder / "config.json").is_file():
        return nothing
    try:
        from transformers import CLIPTextModel
    except ImportError:
        return nothing
    try:
        encoder, notes = CLIPTextModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        missing = [k for k in notes["missing_keys"] if not k.endswith("position_ids")]
        if missing:
            raise ValueError(f"missing in its weights: {', '.join(sorted(missing)[:_NAMED])}")
        pad = _EOS if encoder.config.hidden_size == 768 else 0  # SD 2.x pads with zeros
        tokens = torch.tensor([[_BOS, _EOS, *[pad] * (CONTEXT_TOKENS - 2)]])
        with torch.no_grad():
            context: Tensor = encoder.float().eval()(tokens).last_hidden_state[0]
    except Exception as error:  # transformers raises whatever it likes
        raise UnsupportedError(f"{folder}: {str(error).splitlines()[0]}") from error
    if tuple(context.shape) != (CONTEXT_TOKENS, width):
        raise UnsupportedError(f"{folder}: a context of {tuple(context.shape)}, not {width} wide")
    return context
