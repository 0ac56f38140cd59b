"""Building blocks of the custom networks: plain convolutions, no normalisation.

Nothing here looks further than its 3x3 windows, so the result for a pixel does not depend on
the size of the image around it: tiles with enough overlap give the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING = 64  # width of the conditioning vector

LayerT = TypeVar("LayerT", bound=nn.Conv2d | nn.Linear)


class Grid(NamedTuple):
    """The integers that a convolution of an integer network takes, and what one of them is worth.

    Attributes:
        low, high: range.
        unit: of the input, times the power of two that is measured; weights are scaled with it.
    """

    low: int
    high: int
    unit: float = 1.0


SIGNED, UNSIGNED = Grid(-128, 127), Grid(0, 255)
STEM = Grid(-1024, 1023)  # where y and z enter: 8 bits would cost a tenth of a dB
PIXELS = Grid(-255, 255, 1 / 255)  # of 2 x - 1
WEIGHT_MAX = 63  # 7 bits: products of two in 16 bits cannot overflow (2 * 255 * 63 < 2^15)
SUM_MAX = 0.95 * 2**24  # of a sum of products; the rest is for rounding and the bias


class Conv(nn.Conv2d):
    """A convolution that can work on the grids of integer networks.

    Without an ``input_exponent`` e it is an ordinary one. With one its inputs are rounded to
    integers of the grid times unit * 2^-e and its weights, per output channel, to 7-bit integers
    times a power of two, as an 8-bit kernel sees them; the gradient passes as if nothing had been
    rounded (straight-through; Bengio et al. 2013, arXiv:1308.3432). Weights are scaled so that no
    sum can reach 2^24, which is exact in float32; bfloat16 holds all but the wider stems' inputs.
    """

    input_exponent: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int = 1,
        stride: int = 1,
        padding: int = 0,
        grid: Grid = SIGNED,
    ) -> None:
        super().__init__(inputs, outputs, side, stride, padding)
        self.grid = grid
        self.register_buffer("input_exponent", None)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, inputs, h, w] -> [B, outputs, ., .]."""
        if self.input_exponent is None:
            return super().forward(x)
        is_wide = self.grid.high - self.grid.low > 255
        with torch.autocast(x.device.type, enabled=False) if is_wide else nullcontext():
            x, weight = self.rounded_input(x), self.rounded_weight()
            return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    def rounded_input(self, x: Tensor) -> Tensor:
        """What the integer network would see of x; x itself without an ``input_exponent``."""
        if self.input_exponent is None:
            return x
        unit = self.grid.unit * torch.exp2(-self.input_exponent).to(x.dtype)
        return rounded(x / unit).clamp(self.grid.low, self.grid.high) * unit

    def rounded_weight(self) -> Tensor:
        """The weights of the integer network; its own without an ``input_exponent``."""
        if self.input_exponent is None:
            return self.weight
        scaled = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        sizes = scaled.detach().abs()
        reach = sizes.sum(dim=(1, 2, 3), keepdim=True) * max(self.grid.high, -self.grid.low)
        largest = sizes.amax(dim=(1, 2, 3), keepdim=True)
        least = torch.maximum(largest / WEIGHT_MAX, reach / SUM_MAX).clamp_min(1e-12)
        unit = torch.exp2(torch.log2(least * self.grid.unit).ceil()) / self.grid.unit
        return rounded(scaled / unit).clamp(-WEIGHT_MAX, WEIGHT_MAX) * unit


def adopt_exponents(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put those convolutions onto grids that are on grids in a state, so that it can be loaded."""
    for name, layer in model.named_modules():
        if isinstance(layer, Conv):
            has_grid = f"{name}.input_exponent" in state
            layer.input_exponent = torch.zeros(1, device=layer.weight.device) if has_grid else None


def rounded(x: Tensor) -> Tensor:
    """Round x, with the gradient of x."""
    return x + (x.round() - x).detach()


class Film(nn.Linear):
    """Gain and bias of each channel as the conditions say (Perez et al. 2018, arXiv:1709.07871)."""

    def modulate(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """h [B, channels, h, w], embedding [B, EMBEDDING, ., .] -> as h."""
        assert embedding is not None
        conditions = super().forward(embedding.movedim(1, -1)).movedim(-1, 1)
        gain, bias = at_resolution(conditions, h).chunk(2, dim=1)
        return h * (1 + gain) + bias


class Bottleneck(nn.Module):
    """Residual block 1x1 -> 3x3 -> 1x1, narrower inside, optionally modulated (FiLM).

    The last convolution starts at zero, so an untrained block is the identity. Dense 3x3
    convolutions at half width train about 2.4 times faster on a CPU, per block, than
    depthwise ones at double width (measured), at a similar number of multiplications.
    """

    def __init__(self, channels: int, conditioned: bool = False, inner: float = 0.5) -> None:
        super().__init__()
        width = round(channels * inner)
        self.reduce = Conv(channels, width)
        self.conv = Conv(width, width, 3, padding=1, grid=UNSIGNED)
        self.expand = Conv(width, channels, grid=UNSIGNED)
        zero_(self.expand)
        self.film = zero_(Film(EMBEDDING, 2 * width)) if conditioned else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x [B, channels, h, w], embedding [B, EMBEDDING, ., .] -> as x."""
        h = self.reduce(x)
        if self.film is not None:
            h = self.film.modulate(h, embedding)
        h = torch.relu(self.conv(torch.relu(h)))
        return x + self.expand(h)


class Stack(nn.Module):
    """A row of bottleneck blocks that share one conditioning vector."""

    def __init__(
        self, channels: int, depth: int, conditioned: bool = False, inner: float = 0.5
    ) -> None:
        super().__init__()
        blocks = (Bottleneck(channels, conditioned, inner) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x [B, channels, h, w], embedding [B, EMBEDDING, ., .] -> as x."""
        for block in self.blocks:
            x = block(x, embedding)
        return x


class QualityEmbedding(nn.Module):
    """A learned vector for each of L anchor qualities, linear in between.

    Args (forward): position [B] or [B, h, w], each in 0..1. Returns [B, EMBEDDING, 1, 1] or
    [B, EMBEDDING, h, w].
    """

    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(anchors, EMBEDDING))
        nn.init.normal_(self.table, std=0.5)

    def forward(self, position: Tensor) -> Tensor:
        """Look up and interpolate."""
        return quality_rows(self.table, position)


def interpolate_rows(table: Tensor, position: Tensor) -> Tensor:
    """Row of ``table`` [L, C] at each of ``position`` [...] in 0..1 -> [..., C]."""
    last = table.shape[0] - 1
    position = position.clamp(0, 1) * last
    anchors = torch.arange(last + 1, device=table.device)
    weights = (1 - (position[..., None] - anchors).abs()).clamp_min(0)  # [..., L] hat functions
    with torch.autocast(table.device.type, enabled=False):  # quantisation steps must be exact
        return weights @ table


def quality_rows(table: Tensor, position: Tensor) -> Tensor:
    """Rows of ``table`` [L, C] as maps: position [B] -> [B, C, 1, 1], [B, h, w] -> [B, C, h, w].

    The second is a level map: a position for each cell of z.
    """
    return as_map(interpolate_rows(table, position))


def as_map(rows: Tensor) -> Tensor:
    """[B, C] -> [B, C, 1, 1]; [B, h, w, C] -> [B, C, h, w]."""
    return rows[:, :, None, None] if rows.ndim == 2 else rows.movedim(-1, 1)


def at_resolution(conditions: Tensor, x: Tensor) -> Tensor:
    """Conditions [B, C, ., .] of each cell of z for each place of x, on a finer or coarser grid.

    One place [B, C, 1, 1] is left as it is. A coarser grid's places share a block of the level map,
    so the first of their cells speaks for them.
    """
    (rows, columns), (height, width) = conditions.shape[-2:], x.shape[-2:]
    if (rows, columns) in ((1, 1), (height, width)):
        return conditions
    if height > rows or width > columns:
        finer = max(height // rows, width // columns)
        return conditions.repeat_interleave(finer, 2).repeat_interleave(finer, 3)
    coarser = max(-(-rows // height), -(-columns // width))  # one row of cells stays one
    return conditions[..., ::coarser, ::coarser]


def timestep_embedding(t: Tensor) -> Tensor:
    """Sinusoidal embedding of timesteps [...] -> [..., EMBEDDING] (Ho et al. 2020, section 3.3)."""
    half = EMBEDDING // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000.0) / half))
    angles = t[..., None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


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
