"""Validation on held-out photos: rounded symbols, rate from the prior in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pytorch_msssim import ms_ssim

from bkcodec.models.compression import BkSdmCompression
from bkcodec.train.data import Photos
from bkcodec.train.context import ContextNetwork

QUALITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
SIDE = 320


@dataclass(frozen=True, slots=True)
class Row:
    """Means over the validation photos at one quality (0..1)."""

    quality: float
    bpp: float
    psnr: float
    ms_ssim: float

    def __str__(self) -> str:
        return (f"q {self.quality:.2f} bpp {self.bpp:.4f} psnr {self.psnr:.2f} "
                f"ms-ssim {self.ms_ssim:.4f}")  # fmt: skip


@torch.no_grad()
def validate(
    model: BkSdmCompression, prior: ContextNetwork, photos: Photos, device: torch.device
) -> list[Row]:
    """Code the centre 320 x 320 pixels of every photo at five qualities, one row each."""
    rows = []
    for quality in QUALITIES:
        figures = []
        for image in photos.images:
            top, left = (image.shape[0] - SIDE) // 2, (image.shape[1] - SIDE) // 2
            crop = torch.from_numpy(image[top : top + SIDE, left : left + SIDE].copy())
            x = crop.permute(2, 0, 1)[None].to(device).float() / 255
            out = model(x, quality)
            level = torch.full((1,), quality, device=device)
            step = model.quantiser.step(level)
            bits = prior.bits(out["symbols"] * step, out["symbols"], step, level)
            x_hat = (out["x_hat"].clamp(0, 1) * 255).round() / 255
            mse = (x_hat - x).square().mean().clamp_min(1e-9)
            similarity = ms_ssim(x_hat, x, data_range=1.0)
            figures.append(torch.stack([bits[0] / SIDE**2, -10 * mse.log10(), similarity]))
        rows.append(Row(quality, *torch.stack(figures).mean(dim=0).tolist()))
    return rows
