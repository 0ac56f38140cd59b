"""Which qualities the samples of a batch have: one each, or a level map each."""

from __future__ import annotations

import torch
from torch import Tensor

from bkcodec.prior.levelmap import BLOCK

MAP_SHARE = 0.2  # of the batches, whose samples have level maps
MAP_SPREAD = 0.2  # of the qualities of a map, about


def spread_evenly(n: int, generator: torch.Generator) -> Tensor:
    """Random values, one in each n-th of 0..1, in random order."""
    return (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n


def draw_positions(n: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Qualities in 0..1 of n samples of so many cells: [n], or [n, rows, columns] with maps."""
    base = spread_evenly(n, generator)
    if torch.rand(1, generator=generator) >= MAP_SHARE:
        return base
    blocks = (-(-rows // BLOCK), -(-columns // BLOCK))
    maps = torch.stack([_offsets(*blocks, generator) for _ in range(n)]) * MAP_SPREAD
    position = (base[:, None, None] + maps).clamp(0, 1)
    cells = position.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    return cells[:, :rows, :columns].contiguous()


def _offsets(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Blocks on their own, a gradient, or an object before a background; [rows, columns]."""
    kind = int(torch.randint(3, (1,), generator=generator))
    if kind == 0:
        return torch.randn(rows, columns, generator=generator)
    if kind == 1:
        down, right = torch.randn(2, generator=generator)
        return down * torch.linspace(-1, 1, rows)[:, None] + right * torch.linspace(-1, 1, columns)
    top, left = (int(torch.randint(n, (1,), generator=generator)) for n in (rows, columns))
    bottom, end = (
        int(torch.randint(first, n, (1,), generator=generator)) + 1
        for first, n in ((top, rows), (left, columns))
    )
    offsets = torch.zeros(rows, columns)
    offsets[top:bottom, left:end] = 2 * torch.randn(1, generator=generator)
    return offsets
