"""Networks on maps too large for one pass: window by window."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bkcodec.tiling import windows

Network = Callable[..., tuple[Tensor, ...]]


def by_windows(
    network: Network, maps: tuple[Tensor, ...], side: int, reach: int, align: int = 1
) -> tuple[Tensor, ...]:
    """Apply a network to overlapping windows of maps and put its outputs together.

    Args:
        network: as many maps [1, ., h, w] as are given -> maps [1, ., h, w].
        maps: the first's height and width are those of all, but for what is [1, ., 1, 1]: that
            goes with every window.
        side: of a window without its overlap; 0 = one window.
        reach: how many cells on each side of a cell matter.
        align: windows begin at multiples of this.
    """
    height, width = maps[0].shape[-2:]
    if not side or max(height, width) <= side:
        return network(*maps)
    side, halo = (-(-n // align) * align for n in (side, reach))
    whole: tuple[Tensor, ...] = ()
    for window in windows(height, width, side, halo):
        parts = network(*(x if is_one(x) else x[(..., *window.outer)] for x in maps))
        whole = whole or tuple(p.new_empty(*p.shape[:2], height, width) for p in parts)
        for target, part in zip(whole, parts, strict=True):
            target[(..., *window.core)] = part[(..., *window.inner)]
    return whole


def is_one(x: Tensor) -> bool:
    """Whether it has one place, which stands for all."""
    return x.shape[-2:] == (1, 1)
