"""How much memory a picture needs, and how much there is: asked before work starts."""

from __future__ import annotations

import sys
from pathlib import Path

from bkcodec.errors import LimitError
from bkcodec.tiling import AUTO_PIXELS

# Bytes at the peak, measured with lite on a CPU (scripts/huge.py) and rounded up.
_TILE_PIXEL = 110  # a pixel that the networks see at once
_SYMBOL = 10  # a symbol while it is coded
_Z = 4  # a symbol before rounding
_Y_HAT = 36  # a value of y_hat and what a chain of several steps needs beside it
_PIXEL = 3  # of the input
_CGROUP = Path("/sys/fs/cgroup")


def estimate(symbols: int, pixels: int, tile: int, steps: int, has_pixels: bool) -> int:
    """Bytes that encoding or decoding takes beyond the loaded program.

    Args:
        symbols: of z.
        pixels: of the picture.
        tile: pixels of a tile; 0 = the picture is not tiled.
        steps: denoising steps of a decoder; 0 = for encoding.
        has_pixels: whether the pixels are in memory already.
    """
    seen = min(pixels, max(tile or pixels, AUTO_PIXELS // 2))
    needed = symbols * _SYMBOL + seen * _TILE_PIXEL
    if not steps:
        needed += symbols * _Z + (0 if has_pixels else pixels * _PIXEL)
    if steps > 1:
        needed += symbols * _Y_HAT
    return needed


def available() -> int:
    """Bytes that this process can still get: free memory, less where a limit is set."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limits = [free, *_address_space_left(), *_cgroup_left()]
    return max(0, min(limits))


def require(needed: int) -> None:
    """Refuse work that needs more than there is.

    Raises:
        LimitError: with both numbers.
    """
    there = available()
    if needed > there:
        raise LimitError(
            f"needs about {needed / 1e6:,.0f} MB of memory, {there / 1e6:,.0f} MB are free. "
            "Fewer --jobs, a smaller --tile and, in decoding, --steps 1 need less."
        )


def _address_space_left() -> list[int]:
    """What ``ulimit -v`` leaves."""
    if sys.platform == "win32":
        return []
    import resource

    import psutil

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    return [soft - int(psutil.Process().memory_info().vms)]


def _cgroup_left() -> list[int]:
    """What a container's limit leaves (cgroup version 2)."""
    try:
        limit, used, statistics = (
            (_CGROUP / f"memory.{k}").read_text() for k in ("max", "current", "stat")
        )
        cached = dict(line.split() for line in statistics.splitlines())["inactive_file"]
        return [int(limit) - int(used) + int(cached)]  # a cache makes room
    except (OSError, ValueError, KeyError):
        return []  # no such group, or "max": no limit
