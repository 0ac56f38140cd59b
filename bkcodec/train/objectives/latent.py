"""The joint phase in the latent space of Stable Diffusion: the distortion is that of latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.models.compression import BkSdmCompression
from bkcodec.train.objectives.shared import DenoisingLoss, Stats, latents, quantised, uniform
from bkcodec.train.options import TrainOptions
from bkcodec.train.positions import spread_evenly
from bkcodec.train.prior.network import ContextNetwork

COSINE_WEIGHT = 0.1
LIKELIHOOD_WEIGHT = 0.01
DENOISING_WEIGHT = 0.05
JITTER = 0.2  # of the timestep of the single step, so that an encoder may choose it


class LatentObjective(nn.Module):
    """rate + lambda * distortion of y, the denoising loss and the scale's likelihood.

    The distortion is the squared error of the mean and of the single step's y_hat, half each, and
    a little of one minus the cosine between y_hat and y. The Gaussian likelihood alone cannot be
    traded against rate: with a learned scale it falls with log D just as rate grows, so that one
    lambda would stand for every rate. It trains the scale only.
    """

    def __init__(
        self, model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions
    ) -> None:
        super().__init__()
        self.model, self.prior, self.options = model, prior, options
        model.vae.requires_grad_(False)
        model.h_s.get_submodule("correction").requires_grad_(False)  # for a pretrained U-Net
        self.denoising = DenoisingLoss(model)

    def forward(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """Latents [B, 4, h, w], or photos -> the loss (a scalar) and figures to report."""
        model = self.model
        with torch.no_grad():
            y = latents(model, batch)
        position = spread_evenly(len(y), generator).to(y.device)
        z = model.h_a(y)
        step = model.quantiser.step(position)
        noisy, symbols = quantised(z, step, generator)
        with torch.autocast(y.device.type, enabled=False):
            bits = self.prior.bits(noisy.float(), symbols.float(), step, position)
        bpp = bits.mean(dim=(1, 2)) / model.stride**2

        belief = model.believe(symbols, position)
        jitter = 1 + JITTER * (2 * uniform((len(y),), generator, y) - 1)
        start = (model.denoiser.start(position) * jitter).round()
        y_hat = model.denoiser.once(belief, position, start)
        errors = [(part - y).square().mean(dim=(1, 2, 3)) for part in (belief.mean, y_hat)]
        cosine = F.cosine_similarity(y_hat, y, dim=1).mean(dim=(1, 2))
        distortion = (errors[0] + errors[1]) / 2 + COSINE_WEIGHT * (1 - cosine)
        lam = self.options.lambda_at(position)
        # Divided by sqrt(lambda), all qualities pull about equally hard.
        cost = ((bpp + lam * distortion) / lam.sqrt()).mean()

        error = (y - belief.mean).detach()
        scale = belief.log_scale
        likelihood = (0.5 * (error * torch.exp(-scale)).square() + scale).mean()
        denoising = self.denoising(y, belief, generator)
        loss = cost + LIKELIHOOD_WEIGHT * likelihood + DENOISING_WEIGHT * denoising
        return loss, {
            "loss": cost,
            "noisy_bpp": bpp.mean(),
            "mean_mse": errors[0].mean(),
            "mse": errors[1].mean(),
            "cosine": cosine.mean(),
            "scale_nll": likelihood,
            "denoising": denoising,
        }
