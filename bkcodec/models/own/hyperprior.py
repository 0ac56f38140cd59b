"""The hyperprior: y -> z (what is transmitted) and z_hat -> what the decoder knows about y."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bkcodec.models.blocks import (
    STEM,
    Conv,
    Stack,
    in_full_precision,
    interpolate_rows,
    quality_rows,
    zero_,
)
from bkcodec.options import LEVELS

HYPER_DEPTH = 2  # residual blocks of each of the two networks


class HyperEncoder(nn.Module):
    """h_a: y [B, latent, h, w] -> z [B, M, h, w].

    The linear path starts as the identity on the first M latents, the residual at zero.
    """

    def __init__(self, latent: int, channels: int, width: int, inner: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Conv2d(latent, channels, 1)
        self.stem = Conv(latent, width, grid=STEM)
        self.blocks = Stack(width, HYPER_DEPTH, inner=inner)
        self.head = zero_(Conv(width, channels))
        _identity_(self.linear)

    def forward(self, y: Tensor) -> Tensor:
        """See the class."""
        return in_full_precision(self.linear, y) + self.head(self.blocks(self.stem(y)))


class HyperDecoder(nn.Module):
    """h_s: z_hat [B, M, h, w] -> mean [B, latent, h, w] of y, and its log scale.

    The log scale is that of (y - mean) / y_std, natural logarithm, clipped to -6..2.
    """

    def __init__(self, latent: int, channels: int, width: int, inner: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, latent, 1)
        self.stem = Conv(channels, width, grid=STEM)
        self.blocks = Stack(width, HYPER_DEPTH, conditioned=True, inner=inner)
        self.mean = zero_(Conv(width, latent))
        self.log_scale = zero_(Conv(width, latent))
        _identity_(self.linear)
        if self.log_scale.bias is not None:
            nn.init.constant_(self.log_scale.bias, -1.0)

    def forward(self, z_hat: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; embedding is [B, EMBEDDING, ., .]."""
        h = self.blocks(self.stem(z_hat), embedding)
        return in_full_precision(self.linear, z_hat) + self.mean(h), self.log_scale(h).clamp(-6, 2)


class Quantiser(nn.Module):
    """Step sizes by position of z: z / step is rounded, symbol * step * inverse_gain is z_hat.

    Both are tables over L anchor positions, interpolated geometrically in between (gain units:
    Cui et al. 2021, arXiv:2003.02012). Positions are 0..1, one per image or one per cell.
    """

    def __init__(self, channels: int, anchors: int, coarsest: float, finest: float) -> None:
        super().__init__()
        ladder = torch.linspace(0, 1, anchors)[:, None]
        log_step = (1 - ladder) * torch.tensor(coarsest).log() + ladder * torch.tensor(finest).log()
        self.log_step = nn.Parameter(log_step.repeat(1, channels))
        self.log_inverse_gain = nn.Parameter(torch.zeros(anchors, channels))

    def step(self, position: Tensor) -> Tensor:
        """Position [B] or [B, h, w] -> step sizes [B, M, 1, 1] or [B, M, h, w]."""
        return quality_rows(self.log_step, position).exp()

    def all_steps(self) -> Tensor:
        """Step sizes of every level [LEVELS, M]."""
        ladder = torch.linspace(0, 1, LEVELS, device=self.log_step.device)
        return self.step(ladder)[:, :, 0, 0]

    def exact_steps(self) -> NDArray[np.float32]:
        """Those that files are coded with, [LEVELS, M]."""
        steps = self.exact_step(torch.linspace(0, 1, LEVELS))[:, :, 0, 0]
        return np.asarray(steps.numpy())

    def exact_step(self, position: Tensor) -> Tensor:
        """As ``step`` of [B], the same float32 everywhere: computed in float64, on the CPU."""
        log_step = interpolate_rows(self.log_step.detach().cpu().double(), position.cpu().double())
        return log_step.exp().float()[:, :, None, None]

    def dequantise(self, symbols: Tensor, position: Tensor) -> Tensor:
        """Symbols [B, M, h, w] (integers, or noisy in training) -> z_hat, same shape."""
        inverse = quality_rows(self.log_inverse_gain, position).exp()
        return symbols * self.step(position) * inverse


def _identity_(layer: nn.Conv2d) -> None:
    zero_(layer)
    with torch.no_grad():
        n = min(layer.in_channels, layer.out_channels)
        layer.weight[range(n), range(n)] = 1.0
