"""Assembles models: from a bundle, or fresh ones to train."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from bkcodec.bundle import Bundle, load_bundle
from bkcodec.config import LEVELS
from bkcodec.errors import LimitError, UnsupportedError
from bkcodec.models.compression import BkSdmCompression, ModelConfig
from bkcodec.tables import build_tables, laplace_cumulative


def pick_device(device: str) -> torch.device:
    """Find a device; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UnsupportedError: a device that this machine or this PyTorch lacks.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(),
                 "cpu": True}  # fmt: skip
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(device, False):
        raise UnsupportedError(f"device {device} is not available here; try --device cpu")
    return torch.device(device)


@lru_cache(maxsize=4)
def load_model(path: Path, device: str = "auto") -> tuple[BkSdmCompression, Bundle]:
    """Load a bundle and put its networks together on a device, ready to run.

    Raises:
        UnsupportedError: a part that this version cannot load, or tensors that do not fit.
        LimitError: not enough memory on the device.
    """
    bundle = load_bundle(path)
    try:
        foreign = {k: v for k, v in bundle.header["parts"].items() if v != "custom"}
        if foreign:
            raise UnsupportedError(f"{path}: needs {foreign}, which this version cannot load")
        model = BkSdmCompression(ModelConfig(**bundle.header["model"]))
        state = {k: torch.from_numpy(v.astype(np.float32)) for k, v in bundle.networks.items()}
        model.load_state_dict(state)
        model.prior = bundle.prior
        if not all(torch.isfinite(v).all() for v in state.values()):
            raise ValueError("weights that are not finite")
        if (bundle.prior.n_levels, bundle.prior.n_channels) != (LEVELS, model.config.M):
            raise ValueError(f"a prior of {bundle.prior.n_channels} channels")
        if bundle.header["stride"] != model.stride:
            raise ValueError(f"stride {bundle.header['stride']}")
        model = model.to(pick_device(device)).to(memory_format=torch.channels_last)
    except (TypeError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise LimitError(f"not enough memory on {device} for {path.name}") from error
        summary = str(error).splitlines()[0]
        raise UnsupportedError(
            f"{path}: its networks do not fit this version: {summary}"
        ) from error
    return model.eval().requires_grad_(False), bundle


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
        N: width of the custom VAE at 1/8 resolution.
        M: channels of z.
        diffusion_steps: denoising steps that ``decompress`` takes, 1..50.
        use_pretrained_vae: take the VAE from ``bk_sdm_path``.
        use_pretrained_unet: take the U-Net from ``bk_sdm_path``.

    Raises:
        UnsupportedError: a pretrained part was asked for; this version only has custom ones.
    """
    if use_pretrained_vae or use_pretrained_unet:
        where = bk_sdm_path if bk_sdm_path is not None else "no bk_sdm_path given"
        raise UnsupportedError(
            f"pretrained BK-SDM parts are not supported yet ({where}). "
            "Pass use_pretrained_vae=False and use_pretrained_unet=False."
        )
    model = BkSdmCompression(ModelConfig(N=N, M=M), diffusion_steps)
    rank = torch.arange(1, M + 1).numpy().astype(np.float32)
    spread = 8 / rank**0.8  # about how the energy of DCT coefficients of photos falls
    ladder = torch.linspace(0, 1, LEVELS)
    with torch.no_grad():
        steps = model.quantiser.step(ladder)[:, :, 0, 0].numpy()
    model.prior = build_tables(laplace_cumulative(spread), steps, 16 * np.ones(M))
    return model.eval()
