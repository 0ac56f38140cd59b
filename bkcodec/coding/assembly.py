"""Assembles models: from a bundle, or fresh ones to train."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from bkcodec.backbones import find_directory
from bkcodec.bundle import Bundle, load_bundle
from bkcodec.errors import UnsupportedError, UsageError, first_line
from bkcodec.machine import out_of_memory, pick_device
from bkcodec.models.blocks import adopt_exponents
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig, sd_config
from bkcodec.models.sd.folder import has_unet, load_unet, load_vae
from bkcodec.models.sd.parts import SdUNet, SdVae
from bkcodec.models.space import SPACES, OwnSpace
from bkcodec.options import LEVELS, NO_BACKBONE, Backbone
from bkcodec.prior.build import build_tables, laplace_cumulative

_LOADING = threading.Lock()
ADAPTED = ("lora.", "context")  # tensors of a bundle that change a pretrained U-Net
SMALL_GPU = 12e9  # bytes of memory, below which pretrained parts take turns
VARIABLE = "BKCODEC_BK_SDM"
Loaded = tuple[SdVae | None, SdUNet | None]


def load_backbone(backbone: Backbone, needed: list[str], bundle: str) -> Loaded:
    """The pretrained VAE and U-Net for a bundle, in the precision of their files.

    Args:
        backbone: where they come from.
        needed: roles that the bundle has no network for.
        bundle: its name.

    Raises:
        UnsupportedError: a directory or a part is missing, damaged, changed or does not fit.
        UsageError: a U-Net that the backbone does not have.
    """
    source = backbone.bk_sdm
    if source is None and ("unet" in needed or ("vae" in needed and backbone.vae is None)):
        raise UnsupportedError(
            f"bundle {bundle} needs a pretrained {' and '.join(needed)}: name a directory with "
            f"--bk-sdm or ${VARIABLE} (docs/bk-sdm.md says where to get one)"
        )
    directory = find_directory(source) if source is not None else None
    vae_directory = find_directory(backbone.vae) if backbone.vae is not None else directory
    vae = load_vae(vae_directory) if "vae" in needed and vae_directory is not None else None
    has_one = directory is not None and has_unet(directory)
    if backbone.unet == "bk-sdm" and not has_one:
        raise UsageError(f"--unet bk-sdm: {source or 'no --bk-sdm'} has no unet folder")
    is_used = "unet" in needed or (has_one and backbone.unet != "own")
    return vae, load_unet(directory) if is_used and directory is not None else None


def load_model(
    path: Path, device: str = "auto", backbone: Backbone = NO_BACKBONE
) -> tuple[BkSdmCompression, Bundle]:
    """Load a bundle and put its networks together on a device, ready to run.

    Pretrained parts come from ``backbone``, or from $BKCODEC_BK_SDM. They run in float32 on a CPU,
    in the precision of their files elsewhere.

    Raises:
        UnsupportedError: a part that is missing, or tensors that do not fit.
        UsageError: a backbone for a bundle that has none.
        LimitError: not enough memory on the device.
    """
    if backbone.bk_sdm is None and _takes_backbone(load_bundle(path)):
        backbone = replace(backbone, bk_sdm=os.environ.get(VARIABLE) or None)
    bundle = load_bundle(path)
    with _LOADING:  # threads that need the same model wait for one
        return _assemble(bundle, device, backbone), bundle


def move(model: BkSdmCompression, device: torch.device) -> None:
    """Put a model on a device; on a small GPU pretrained parts come one after the other.

    They then wait in main memory and are on the GPU only while they work (``sd.placed``).
    """
    small = (
        device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < SMALL_GPU
    )
    for part in model.children():
        if not (small and isinstance(part, SdVae | SdUNet)):
            part.to(device)
    for name, buffer in model.named_buffers(recurse=False):
        setattr(model, name, buffer.to(device))


def _needed(bundle: Bundle) -> list[str]:
    """Roles for which a bundle has no network of its own."""
    return [role for role, origin in bundle.header["parts"].items() if origin == "pretrained"]


def _takes_backbone(bundle: Bundle) -> bool:
    space = SPACES.get(str(bundle.header["model"].get("space", OwnSpace.name)))
    return space is not None and space.takes_backbone


@lru_cache(maxsize=4)
def _assemble(bundle: Bundle, device: str, backbone: Backbone) -> BkSdmCompression:
    path, parts, needed = bundle.path, bundle.header["parts"], _needed(bundle)
    if any(origin not in ("custom", "pretrained") for origin in parts.values()):
        raise UnsupportedError(f"{path}: has parts that this version does not know: {parts}")
    named = (backbone.bk_sdm, backbone.vae) != (None, None) or backbone.unet == "bk-sdm"
    takes_backbone = _takes_backbone(bundle)
    if named and not takes_backbone:
        raise UsageError(
            f"--bk-sdm, --vae and --unet do not apply: bundle {bundle.name} needs no backbone"
        )
    if backbone.vae is not None and "vae" not in needed:
        raise UsageError(f"--vae does not apply: bundle {bundle.name} has a VAE of its own")
    pretrained = load_backbone(backbone, needed, bundle.name) if takes_backbone else (None, None)
    try:
        with out_of_memory(f"{path.name} does not fit on {device}; try --device cpu."):
            model = _built(bundle, *pretrained, pick_device(device))
    except (TypeError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        summary = first_line(error)
        raise UnsupportedError(
            f"{path}: its networks do not fit this version: {summary}"
        ) from error
    return model


def _built(
    bundle: Bundle, vae: SdVae | None, unet: SdUNet | None, device: torch.device
) -> BkSdmCompression:
    """A bundle's networks around pretrained parts; raises whatever does not fit."""
    config = ModelConfig(**bundle.header["model"])
    state = {k: torch.from_numpy(v.astype(np.float32)) for k, v in bundle.state().items()}
    with torch.device("meta"):  # shapes only: what a file claims may be of any size
        _compare(BkSdmCompression(config, vae=vae, backbone=unet), state)
    model = BkSdmCompression(config, vae=vae, backbone=unet)
    if not all(torch.isfinite(v).all() for v in state.values()):
        raise ValueError("weights that are not finite")
    adapted = {k: v for k, v in state.items() if k.startswith(ADAPTED)}
    model.load_own({k: v for k, v in state.items() if k not in adapted})
    if device.type == "cpu":
        model = model.float()
    if unet is not None and adapted:
        if bundle.header["fitted_to"] != unet.mark():
            raise ValueError("fitted to another U-Net (--unet own does without)")
        unet.adapt(adapted)
    model.prior = bundle.prior
    if (bundle.prior.n_levels, bundle.prior.n_channels) != (LEVELS, model.config.M):
        raise ValueError(f"a prior of {bundle.prior.n_channels} channels")
    if bundle.header["stride"] != model.stride:
        raise ValueError(f"stride {bundle.header['stride']}")
    model = model.to(memory_format=torch.channels_last)
    move(model, device)
    return model.eval().requires_grad_(False)


def _compare(draft: BkSdmCompression, state: dict[str, torch.Tensor]) -> None:
    """Hold the shapes of networks against the tensors of a file (ValueError)."""
    adopt_exponents(draft, state)
    for name, tensor in draft.own_state().items():
        if name not in state or state[name].shape != tensor.shape:
            present = list(state[name].shape) if name in state else "missing"
            raise ValueError(f"{name} is {present}, the header wants {list(tensor.shape)}")


def create_bk_sdm_compression_model(
    bk_sdm_path: str | Path | None = None,
    N: int = 128,  # noqa: N803 (the field's names)
    M: int = 128,  # noqa: N803
    diffusion_steps: int = 30,
    use_pretrained_vae: bool = True,
    use_pretrained_unet: bool = True,
) -> BkSdmCompression:
    """An untrained compression model, able to compress and decompress at once.

    Args:
        bk_sdm_path: a BK-SDM directory in diffusers layout, for the pretrained parts.
        N: width of the custom networks at 1/8 resolution.
        M: channels of z (64 is all that a pretrained part's latent space has).
        diffusion_steps: denoising steps that ``decompress`` takes, 1..50.
        use_pretrained_vae: take the VAE from ``bk_sdm_path``.
        use_pretrained_unet: take the U-Net from ``bk_sdm_path``.

    With a pretrained part y is the latent of Stable Diffusion 1.x, and the custom one is shaped for
    that space too; without any, y is the latent of our own VAE.

    Raises:
        UnsupportedError: a pretrained part is missing or does not fit.
    """
    if not (use_pretrained_vae or use_pretrained_unet):
        model = BkSdmCompression(ModelConfig(N=N, M=M), diffusion_steps)
        rank = torch.arange(1, M + 1).numpy().astype(np.float32)
        spread = 8 / rank**0.8  # about how the energy of DCT coefficients of photos falls
    else:
        if bk_sdm_path is None:
            raise UnsupportedError(
                "pretrained parts need bk_sdm_path. Or pass use_pretrained_vae=False and "
                "use_pretrained_unet=False."
            )
        directory = Path(bk_sdm_path)
        vae = load_vae(directory).float() if use_pretrained_vae else None
        unet = load_unet(directory).float() if use_pretrained_unet else None
        model = BkSdmCompression(sd_config(N, M), diffusion_steps, vae, unet)
        spread = np.full(M, 2.0, np.float32)
    with torch.no_grad():
        steps = model.quantiser.all_steps().numpy()
    model.prior = build_tables(laplace_cumulative(spread), steps, 16 * np.ones(M))
    return model.eval()
