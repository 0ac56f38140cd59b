"""The hyperprior for the latent space of Stable Diffusion 1.x: y is [B, 4, H/8, W/8].

```
y --unshuffle 4--> 4x4 DCT ------------------------------------------(+)--> z [B, M, H/32, W/32]
y --unshuffle 2--> 1x1 --> blocks at 1/16 --> 2x2 --> blocks at 1/32 --^

z_hat --> inverse DCT --> shuffle 4 ------------------------------(+)--> mean
z_hat --> 1x1 --> blocks at 1/32 --> blocks at 1/16 --> shuffle 2 --^--> log scale, correction
```

The residual paths start at zero, so an untrained hyperprior is a transform coder of latents.
Nothing here normalises over the picture or looks further than its 3x3 windows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.models.blocks import (
    Stack,
    in_full_precision,
    shuffle,
    unshuffle,
    zero_,
)
from bkcodec.models.dct import dct_matrix

LATENT = 4  # channels of y
FACTOR = 4  # cells of y along a cell of z
SCALE_START = -0.7  # of the log scale of y, whose own spread is about 1


def widths(width: int) -> tuple[int, int]:
    """Widths at 1/16 and 1/32 for a width at 1/8."""
    return 2 * width, 3 * width


class LatentHyperEncoder(nn.Module):
    """h_a: y [B, 4, h, w], h and w multiples of 4 -> z [B, channels, h/4, w/4]."""

    def __init__(self, channels: int, width: int, depths: tuple[int, int]) -> None:
        super().__init__()
        middle, deep = widths(width)
        self.linear = nn.Conv2d(LATENT * FACTOR**2, channels, 1)
        self.stem = nn.Conv2d(LATENT * 4, middle, 1)
        self.fine = Stack(middle, depths[0])
        self.down = nn.Conv2d(middle, deep, 2, stride=2)
        self.coarse = Stack(deep, depths[1])
        self.head = zero_(nn.Conv2d(deep, channels, 1))
        _set_dct_(self.linear, latent_basis(channels))

    def forward(self, y: Tensor) -> Tensor:
        """See the class."""
        h = self.coarse(self.down(self.fine(self.stem(unshuffle(y, 2)))))
        return in_full_precision(self.linear, unshuffle(y, FACTOR)) + self.head(h)


class LatentHyperDecoder(nn.Module):
    """h_s: z_hat [B, channels, h/4, w/4] -> mean, log scale, correction of y, each [B, 4, h, w].

    The log scale (natural logarithm, clipped to -6..2) is that of y - mean. The correction is added
    to what a pretrained U-Net makes of the mean; it starts at zero.
    """

    def __init__(self, channels: int, width: int, depths: tuple[int, int]) -> None:
        super().__init__()
        middle, deep = widths(width)
        self.linear = nn.Conv2d(channels, LATENT * FACTOR**2, 1)
        self.stem = nn.Conv2d(channels, deep, 1)
        self.coarse = Stack(deep, depths[1], conditioned=True)
        self.up = nn.Conv2d(deep, 4 * middle, 1)
        self.fine = Stack(middle, depths[0], conditioned=True)
        self.mean, self.log_scale, self.correction = (
            zero_(nn.Conv2d(middle, 4 * LATENT, 1)) for _ in range(3)
        )
        _set_dct_(self.linear, latent_basis(channels).t())
        if self.log_scale.bias is not None:
            nn.init.constant_(self.log_scale.bias, SCALE_START)

    def forward(self, z_hat: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class; embedding is [B, EMBEDDING, ., .]."""
        h = shuffle(self.up(self.coarse(self.stem(z_hat), embedding)), 2)
        h = self.fine(h, embedding)
        mean, log_scale, correction = (
            shuffle(head(h), 2) for head in (self.mean, self.log_scale, self.correction)
        )
        mean = shuffle(in_full_precision(self.linear, z_hat), FACTOR) + mean
        return mean, log_scale.clamp(-6, 2), correction


def latent_basis(channels: int) -> Tensor:
    """DCT basis vectors of 4 x 4 cells of the four latent channels, lowest frequencies first.

    Returns:
        [channels, 64], rows orthonormal (zero beyond the 64th), columns in the order of
        ``pixel_unshuffle(y, 4)``.
    """
    dct = dct_matrix(FACTOR)
    basis = torch.einsum("ac,ui,vj->uvacij", torch.eye(LATENT), dct, dct)
    k = torch.arange(FACTOR, dtype=torch.float32)
    radius = (k[:, None] ** 2 + k[None] ** 2).flatten().repeat_interleave(LATENT)
    rows = basis.reshape(LATENT * FACTOR**2, -1)[torch.argsort(radius, stable=True)]
    return F.pad(rows, (0, 0, 0, max(0, channels - len(rows))))[:channels]


def _set_dct_(layer: nn.Conv2d, basis: Tensor) -> None:
    with torch.no_grad():
        zero_(layer).weight.copy_(basis[:, :, None, None])
