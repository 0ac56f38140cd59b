"""Building blocks of the custom networks: plain convolutions, no normalisation.

Nothing here looks further than its 3x3 windows, so the result for a pixel does not depend on
the size of the image around it: tiles with enough overlap give the same picture.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING = 64  # width of the conditioning vector
STRIP = 4096  # cells that are convolved at once

LayerT = TypeVar("LayerT", nn.Conv2d, nn.Linear)


class Bottleneck(nn.Module):
    """Residual block 1x1 -> 3x3 -> 1x1 at half width, optionally modulated (FiLM).

    The last convolution starts at zero, so an untrained block is the identity. Dense 3x3
    convolutions at half width train about 2.4 times faster on a CPU, per block, than
    depthwise ones at double width (measured), at a similar number of multiplications.
    """

    def __init__(self, channels: int, conditioned: bool = False) -> None:
        super().__init__()
        inner = channels // 2
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1)
        self.expand = nn.Conv2d(inner, channels, 1)
        zero_(self.expand)
        self.film = zero_(nn.Linear(EMBEDDING, 2 * inner)) if conditioned else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x [B, channels, h, w], embedding [B, EMBEDDING] -> as x."""  # noqa: D403
        h = self.reduce(x)
        if self.film is not None:
            gamma, beta = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + gamma) + beta
        h = torch.relu(convolve(self.conv, torch.relu(h)))
        return x + self.expand(h)


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution; in float64 in strips of rows.

    PyTorch's for float64 first copies each window of its input, nine times the input in all. Strips
    keep that in the processor's cache, which is up to twice as fast.
    """
    if x.dtype != torch.float64:
        y: Tensor = layer(x)
        return y
    rows = max(1, STRIP // x.shape[3])
    x = F.pad(x, (1, 1, 1, 1))
    return torch.cat([
        F.conv2d(x[:, :, top : top + rows + 2], layer.weight, layer.bias)
        for top in range(0, x.shape[2] - 2, rows)
    ], dim=2)  # fmt: skip


class Stack(nn.Module):
    """A row of bottleneck blocks that share one conditioning vector."""

    def __init__(self, channels: int, depth: int, conditioned: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Bottleneck(channels, conditioned) for _ in range(depth))

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x [B, channels, h, w], embedding [B, EMBEDDING] -> as x."""  # noqa: D403
        for block in self.blocks:
            x = block(x, embedding)
        return x


class QualityEmbedding(nn.Module):
    """A learned vector for each of L anchor qualities, linear in between.

    Args (forward): quality [B], each in 0..1. Returns [B, EMBEDDING].
    """

    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(anchors, EMBEDDING))
        nn.init.normal_(self.table, std=0.5)

    def forward(self, quality: Tensor) -> Tensor:
        """Look up and interpolate."""
        return interpolate_rows(self.table, quality)


def interpolate_rows(table: Tensor, quality: Tensor) -> Tensor:
    """Row of ``table`` [L, C] at each position of ``quality`` [B] in 0..1 -> [B, C]."""
    last = table.shape[0] - 1
    position = quality.clamp(0, 1) * last
    anchors = torch.arange(last + 1, device=table.device)
    weights = (1 - (position[:, None] - anchors[None]).abs()).clamp_min(0)  # [B, L] hat functions
    with torch.autocast(table.device.type, enabled=False):  # quantisation steps must be exact
        return weights @ table


def timestep_embedding(t: Tensor) -> Tensor:
    """Sinusoidal embedding of timesteps [B] -> [B, EMBEDDING] (Ho et al. 2020, section 3.3)."""
    half = EMBEDDING // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000.0) / half))
    angles = t[:, None].float() * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def in_full_precision(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The layer's output in its weights' precision, also under automatic mixed precision.

    The linear paths carry coefficients of hundreds of quantisation steps; bfloat16 has 8 bits.
    """
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = layer(x.to(layer.weight.dtype))
    return out


def unshuffle(x: Tensor, factor: int) -> Tensor:
    """``pixel_unshuffle``, kept channels-last: convolutions run 1.5 times faster on CPUs."""
    return F.pixel_unshuffle(x, factor).contiguous(memory_format=torch.channels_last)


def shuffle(x: Tensor, factor: int) -> Tensor:
    """``pixel_shuffle``, kept channels-last."""
    return F.pixel_shuffle(x, factor).contiguous(memory_format=torch.channels_last)


def zero_(layer: LayerT) -> LayerT:
    """Set a layer's weight and bias to zero and return it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
