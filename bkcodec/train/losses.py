"""The objective of one training step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from pytorch_msssim import ms_ssim
from torch import Tensor

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.diffusion import BETA_SCHEDULES
from bkcodec.train.context import ContextNetwork

if TYPE_CHECKING:
    from bkcodec.train.loop import TrainOptions

# 1 - MS-SSIM weighted like this trades against rate as one squared 8-bit level does with MSE
# (ratio of the two published lambda ladders of CompressAI, about 1270 at every quality).
MS_SSIM_TO_MSE = 1270.0
ROUND_TRIP_SHARE = 0.08  # part of the samples in which the VAE decoder sees y itself
DIFFUSION_WEIGHT = 0.1
SCALE_WEIGHT = 0.02
CHROMA_WEIGHT = 0.5  # of the squared error of mean chroma in 8 x 8 pixels: faint colours stay


class RateDistortion:
    """rate + lambda * distortion, the denoising loss and the scale's likelihood.

    Every sample of a batch has its own quality. The rate sees z with uniform noise, the decoder
    sees rounded z through a straight-through gradient (Minnen and Singh 2020, arXiv:2007.08739).
    """

    def __init__(
        self, model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions
    ) -> None:
        self.model, self.prior, self.options = model, prior, options
        c = model.config
        scheduler = DDPMScheduler(c.train_timesteps, beta_schedule=BETA_SCHEDULES[c.schedule])
        self.alphas_cumprod = scheduler.alphas_cumprod
        self.t_max = c.t_coarsest + 50

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """X [B, 3, H, W] in 0..1 -> the loss (a scalar) and figures to report."""
        model = self.model

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(x.device)

        batch = x.shape[0]
        quality = (torch.randperm(batch, generator=generator).to(x.device) + uniform(batch)) / batch
        y, z = model.analyse(x)
        step = model.quantiser.step(quality)
        noisy = z + (uniform(*z.shape) - 0.5) * step
        scaled = z / step
        symbols = scaled + (scaled.round() - scaled).detach()
        bpp = self.prior.bits(noisy, symbols, step, quality) / x[0, 0].numel()
        z_hat = model.quantiser.dequantise(symbols, quality)
        mean, log_scale, embedding = model.hyper_synthesis(z_hat, quality)
        y_hat = model.denoise_once(mean, log_scale, quality, embedding)
        target = y / model.y_std
        round_trip = uniform(batch) < ROUND_TRIP_SHARE
        y_hat = torch.where(round_trip[:, None, None, None], target, y_hat)
        x_hat = model.reconstruct(y_hat, (x.shape[-2], x.shape[-1]))

        mse = (x_hat - x).square().mean(dim=(1, 2, 3))
        dissimilarity = 1 - ms_ssim(x_hat, x, data_range=1.0, size_average=False)
        share = self.options.ms_ssim_weight
        distortion = (1 - share) * 255**2 * mse + share * MS_SSIM_TO_MSE * dissimilarity
        distortion = distortion + CHROMA_WEIGHT * 255**2 * _chroma_error(x_hat - x)
        low, high = math.log(self.options.lambda_min), math.log(self.options.lambda_max)
        lam = torch.exp(low + (high - low) * quality)
        # Divided by sqrt(lambda), all qualities pull about equally hard.
        cost = ((bpp + lam * distortion) / (20 * lam.sqrt())).mean()

        error = (target - mean).detach()
        likelihood = (0.5 * (error * torch.exp(-log_scale)).square() + log_scale).mean()
        denoising = self._denoising(target, mean, log_scale, embedding, generator)
        loss = cost + SCALE_WEIGHT * likelihood + DIFFUSION_WEIGHT * denoising
        stats = {
            "loss": cost, "bpp": bpp.mean(), "psnr": -10 * torch.log10(mse.clamp_min(1e-9)).mean(),
            "ms_ssim": 1 - dissimilarity.mean(), "scale_nll": likelihood, "denoising": denoising,
        }  # fmt: skip
        return loss, {name: value.item() for name, value in stats.items()}

    def _denoising(
        self, target: Tensor, mean: Tensor, log_scale: Tensor, embedding: Tensor,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Squared error of the x0-prediction at random noise levels, given what h_s knows.

        Half of the batch is enough: this is the cheaper task, and every U-Net pass costs time.
        """
        half = (len(target) + 1) // 2
        clean, mean, log_scale, embedding = (
            part[:half].detach() for part in (target, mean, log_scale, embedding)
        )
        t = torch.randint(0, self.t_max, (len(clean),), generator=generator)
        alpha = self.alphas_cumprod[t].to(clean.device)[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        y_t = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        predicted = self.model.unet(
            y_t, mean, log_scale, t.to(clean.device), embedding, texture=True
        )
        return (predicted - clean).square().mean()


def _chroma_error(error: Tensor) -> Tensor:
    """Squared error [B] of two orthonormal chroma axes, averaged over 8 x 8 pixels before."""
    red, green, blue = F.avg_pool2d(error, 8).unbind(dim=1)
    chroma = torch.stack([(red - blue) / 2**0.5, (red - 2 * green + blue) / 6**0.5], dim=1)
    return chroma.square().mean(dim=(1, 2, 3))
