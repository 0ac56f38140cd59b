"""The phases joint, quantise and decoder: rate and distortion, in our own latent space."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.lpips import Lpips
from bkcodec.train.objectives.shared import (
    MS_SSIM_TO_MSE,
    DenoisingLoss,
    Stats,
    colour_error,
    per_cell,
    quantised,
    uniform,
)
from bkcodec.train.objectives.similarity import ms_ssim
from bkcodec.train.options import TrainOptions
from bkcodec.train.positions import draw_positions
from bkcodec.train.prior.network import ContextNetwork

ROUND_TRIP_SHARE = 0.08  # part of the samples in which the VAE decoder sees y itself
DENOISING_WEIGHT = 0.1
SCALE_WEIGHT = 0.02


class JointObjective(nn.Module):
    """rate + lambda * distortion, the denoising loss and the scale's likelihood.

    Every sample of a batch has its own position, or with a level map every block of it. The rate
    sees z with uniform noise, the decoder rounded z through a straight-through gradient (Minnen and
    Singh 2020, arXiv:2007.08739). In the decoder phase there is no rate: symbols stay as they are.
    """

    def __init__(
        self, model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions
    ) -> None:
        super().__init__()
        self.model, self.prior, self.options = model, prior, options
        model.vae.decoder.texture.requires_grad_(False)  # these wait for the texture phase
        model.vae.decoder.texture_head.requires_grad_(False)
        self.has_rate = options.phase != "decoder"
        if not self.has_rate:
            for part in (model.vae.encoder, model.h_a, prior):
                part.requires_grad_(False)
            model.quantiser.log_step.requires_grad_(False)
        self.lpips = Lpips(Path(options.lpips)) if options.lpips else None
        self.denoising = DenoisingLoss(model)

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """x [B, 3, H, W] in 0..1 -> the loss (a scalar) and figures to report."""
        model, options = self.model, self.options
        batch = x.shape[0]
        y, z = model.analyse(x)
        position = draw_positions(batch, z.shape[2], z.shape[3], generator).to(x.device)
        step = model.quantiser.step(position)
        noisy, symbols = quantised(z, step, generator)
        bpp = torch.zeros_like(z[:, 0])
        if self.has_rate:
            with torch.autocast(x.device.type, enabled=False):
                bpp = self.prior.bits(noisy, symbols, step, position) / model.stride**2

        belief = model.believe(symbols, position)
        mean, log_scale, embedding, _ = belief
        y_hat = model.denoiser.once(belief, position)
        target = y / model.y_std
        round_trip = uniform((batch,), generator, x) < ROUND_TRIP_SHARE
        y_hat = torch.where(round_trip[:, None, None, None], target, y_hat)
        x_hat = model.reconstruct(y_hat, (x.shape[-2], x.shape[-1]))

        error = x_hat - x
        mse = per_cell(error.square(), model.stride)
        with torch.autocast(x.device.type, enabled=False):
            dissimilarity = 1 - ms_ssim(x_hat, x)
        share = options.ms_ssim_weight
        distortion = 255**2 * ((1 - share) * mse + colour_error(error, model.stride))
        by_picture = share * MS_SSIM_TO_MSE * dissimilarity
        if self.lpips is not None and options.lpips_weight:
            perceived = self.lpips(x_hat.clamp(0, 1), x)
            by_picture = by_picture + options.lpips_weight * MS_SSIM_TO_MSE * perceived
        distortion = distortion + by_picture[:, None, None]
        lam = options.lambda_at(position if position.ndim == 3 else position[:, None, None])
        # Divided by sqrt(lambda), all qualities pull about equally hard.
        cost = ((bpp + lam * distortion) / (20 * lam.sqrt())).mean()

        surprise = (target - mean).detach()
        likelihood = (0.5 * (surprise * torch.exp(-log_scale)).square() + log_scale).mean()
        denoising = self.denoising(target, belief, generator)
        loss = cost + SCALE_WEIGHT * likelihood + DENOISING_WEIGHT * denoising
        mse = mse.mean(dim=(1, 2)).clamp_min(1e-9)
        return loss, {
            "loss": cost,
            "noisy_bpp": bpp.mean(),
            "psnr": -10 * torch.log10(mse).mean(),
            "ms_ssim": 1 - dissimilarity.mean(),
            "scale_nll": likelihood,
            "denoising": denoising,
        }
