"""What several objectives need."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Belief, beta_schedule

# 1 - MS-SSIM weighted like this trades against rate as one squared 8-bit level does with MSE
# (ratio of the two published lambda ladders of CompressAI, about 1270 at every quality).
MS_SSIM_TO_MSE = 1270.0
CHROMA_WEIGHT = 0.5  # of the squared error of mean chroma in 8 x 8 pixels: faint colours stay
COLOUR_WEIGHT, MEAN_SIDE = 1.0, 32  # of that of mean colours in squares of so many pixels

Stats = dict[str, Tensor]


class DenoisingLoss:
    """Squared error of the x0-prediction at random noise levels, given what h_s knows.

    A quarter of a batch is enough: this is the cheaper task, and every U-Net pass costs time.
    """

    def __init__(self, model: BkSdmCompression) -> None:
        self.model, c = model, model.config
        betas = beta_schedule(c.schedule, c.train_timesteps)
        self.alphas_cumprod = torch.from_numpy(1 - betas).cumprod(dim=0)
        self.t_max = min(c.t_coarsest + 50, c.train_timesteps)

    def __call__(self, target: Tensor, belief: Belief, generator: torch.Generator) -> Tensor:
        """Standardised y and what is known about it -> a scalar."""
        some = -(-len(target) // 4)
        clean, mean, log_scale, embedding = (part[:some].detach() for part in (target, *belief[:3]))
        t = torch.randint(0, self.t_max, (len(clean),), generator=generator)
        alpha = self.alphas_cumprod[t].to(clean.device)[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        y_t = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        embedding = self.model.unet.condition(embedding, t.to(clean.device))
        predicted: Tensor = self.model.unet(y_t, mean, log_scale, embedding, texture=True)
        return (predicted - clean).square().mean()


def latents(model: BkSdmCompression, batch: Tensor) -> Tensor:
    """y of a batch: of photos [B, 3, H, W], or of cached latents, which are y already."""
    return model.encode(batch) if batch.shape[1] == 3 else batch


def quantised(z: Tensor, step: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """z with uniform noise of one step, for the rate; and rounded symbols, straight-through."""
    noisy = z + (uniform(z.shape, generator, z) - 0.5) * step
    scaled = z / step
    return noisy, scaled + (scaled.round() - scaled).detach()


def uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform noise from the CPU's generator: equal on every device."""
    return torch.rand(shape, generator=generator).to(like.device)


def per_cell(x: Tensor, side: int) -> Tensor:
    """Means [B, h, w] of maps [B, C, H, W] over C and cells of so many pixels."""
    return F.avg_pool2d(x, side, ceil_mode=True).mean(dim=1)


def colour_error(error: Tensor, side: int) -> Tensor:
    """Squared errors of mean colours, weighted, [B, h, w] for cells of so many pixels.

    Over 8 x 8 pixels those of two orthonormal chroma axes, over 32 x 32 those of R, G and B.
    """
    near, far = (F.avg_pool2d(error, n, ceil_mode=True) for n in (8, MEAN_SIDE))
    red, green, blue = near.unbind(dim=1)
    chroma = torch.stack([(red - blue) / math.sqrt(2), (red - 2 * green + blue) / math.sqrt(6)], 1)
    colour = CHROMA_WEIGHT * per_cell(chroma.square(), side // 8)
    mean = far.square().mean(dim=1)
    spread = mean.repeat_interleave(MEAN_SIDE // side, 1).repeat_interleave(MEAN_SIDE // side, 2)
    return colour + COLOUR_WEIGHT * spread[:, : colour.shape[1], : colour.shape[2]]
