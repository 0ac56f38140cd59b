"""Tiny random models in diffusers layout, and a tiny bundle around them."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)

CONTEXT = 16  # cross_attention_dim


def tiny_vae() -> AutoencoderTiny:
    torch.manual_seed(1)
    widths = (8, 8, 8, 8)
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )


def save_tiny_vae(folder: Path) -> Path:
    tiny_vae().save_pretrained(folder)
    return folder


def save_kl_vae(folder: Path) -> Path:
    torch.manual_seed(2)
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.18215,
    ).save_pretrained(folder)
    return folder


def tiny_unet(**changed: object) -> UNet2DConditionModel:
    torch.manual_seed(3)
    sizes = {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "cross_attention_dim": CONTEXT,
        "attention_head_dim": 4,
        "sample_size": 16,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "mid_block_type": None,
    }
    return UNet2DConditionModel(**{**sizes, **changed})


def save_scheduler(folder: Path, prediction: str = "epsilon") -> None:
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder)


def save_zero_snr_scheduler(folder: Path) -> None:
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    ).save_pretrained(folder)


def save_bk_sdm(folder: Path, prediction: str = "epsilon", **changed: object) -> Path:
    """vae/ (AutoencoderTiny), unet/, scheduler/."""
    save_tiny_vae(folder / "vae")
    tiny_unet(**changed).save_pretrained(folder / "unet")
    save_scheduler(folder / "scheduler", prediction)
    return folder
