"""Our denoiser for the latent space of Stable Diffusion 1.x."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bkcodec.models.blocks import (
    EMBEDDING,
    Stack,
    as_map,
    shuffle,
    timestep_embedding,
    zero_,
)
from bkcodec.models.sd.hyperprior import LATENT, widths


class LatentUNet(nn.Module):
    """(y_t, mean, log_scale [B, 4, h, w], embedding [B, E, ., .]) -> y_hat.

    Three resolutions, x0-prediction. As in ``own.unet.DenoisingUNet`` the way up exists twice: for
    one step from the mean, and for noisy latents (``texture``). Untrained it returns the mean.
    ``reach`` and ``align`` as there.
    """

    align = 4

    def __init__(self, width: int, depths: tuple[int, int, int] = (2, 3, 3)) -> None:
        super().__init__()
        self.reach = 2 * (1 + depths[0] + 2 * depths[1]) + 4 * depths[2] + self.align - 1
        middle, deep = widths(width)
        self.time = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING)
        )
        self.stem = nn.Conv2d(3 * LATENT, width, 3, padding=1)
        self.fine = Stack(width, depths[0], conditioned=True)
        self.down_middle = nn.Conv2d(width, middle, 2, stride=2)
        self.middle = Stack(middle, depths[1], conditioned=True)
        self.down_deep = nn.Conv2d(middle, deep, 2, stride=2)
        self.deep = Stack(deep, depths[2], conditioned=True)
        self.up = nn.ModuleList(_Up(width, depths) for _ in range(2))

    def condition(self, embedding: Tensor, t: Tensor) -> Tensor:
        """As ``own.unet.DenoisingUNet.condition``."""
        return embedding + as_map(self.time(timestep_embedding(t)))

    def forward(
        self, y_t: Tensor, mean: Tensor, log_scale: Tensor, embedding: Tensor, texture: bool = False
    ) -> Tensor:
        """See the class; h and w are multiples of 4."""
        fine = self.fine(self.stem(torch.cat([y_t, mean, log_scale], dim=1)), embedding)
        middle = self.middle(self.down_middle(fine), embedding)
        deep = self.deep(self.down_deep(middle), embedding)
        return mean + self.up[int(texture)](deep, middle, fine, embedding)


class _Up(nn.Module):
    """The way up of the U-Net."""

    def __init__(self, width: int, depths: tuple[int, int, int]) -> None:
        super().__init__()
        middle, deep = widths(width)
        self.to_middle = nn.Conv2d(deep, 4 * middle, 1)
        self.middle = Stack(middle, depths[1], conditioned=True)
        self.to_fine = nn.Conv2d(middle, 4 * width, 1)
        self.fine = Stack(width, depths[0], conditioned=True)
        self.head = zero_(nn.Conv2d(width, LATENT, 3, padding=1))

    def forward(self, deep: Tensor, middle: Tensor, fine: Tensor, embedding: Tensor) -> Tensor:
        h = self.middle(middle + shuffle(self.to_middle(deep), 2), embedding)
        h = self.fine(fine + shuffle(self.to_fine(h), 2), embedding)
        return self.head(torch.relu(h))
