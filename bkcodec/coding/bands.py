"""Large pictures band by band: strips side by side, each a stream through the networks.

A stream computes nothing twice; only strips overlap, by the reach of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bkcodec.engine.runtime import Map
from bkcodec.errors import failures
from bkcodec.image.picture import Pixels
from bkcodec.machine import ADVICE, n_threads, out_of_memory
from bkcodec.tiling import Slices, windows

if TYPE_CHECKING:
    from bkcodec.engine.streaming import Held, Stream

HEIGHT = 4  # of a band in cells: small enough for the caches
WIDEST = 512  # cells of a strip
NARROW = 2  # a strip is at least so many times as wide as what it shares with its neighbours

Feed = Callable[[Slices], Mapping[str, NDArray[np.generic]]]


def in_bands(stream: Stream, feed: Feed, grid: tuple[int, ...]) -> Iterator[list[Map]]:
    """What a network says about a picture, from top to bottom.

    Args:
        stream: the network.
        feed: rows and columns of cells -> its inputs there.
        grid: rows and columns of the picture.

    Yields:
        Of each output the rows [C, h, w] that follow, none or many.
    """
    rows, columns = grid
    workers = max(1, min(n_threads(), columns // (2 * NARROW * stream.reach)))
    n_strips = max(workers, -(-columns // WIDEST))
    side = -(-columns // (2 * n_strips)) * 2
    strips = list(windows(1, columns, side, stream.reach))
    held: list[Held] = [[] for _ in strips]

    def push(number: int, band: slice) -> list[Map]:
        strip = strips[number]
        maps = feed((band, strip.outer[1]))
        is_last = band.stop == rows
        outputs, held[number] = stream.run(maps, held[number], is_last)
        width = strip.outer[1].stop - strip.outer[1].start
        inner = strip.inner[1]
        finer = [output.shape[2] // width for output in outputs]
        return [
            output[..., f * inner.start : f * inner.stop]
            for output, f in zip(outputs, finer, strict=True)
        ]

    with ThreadPoolExecutor(workers) as pool:
        for band in _bands(rows, stream.reach):
            parts = pool.map(push, range(len(strips)), [band] * len(strips))
            yield [
                np.concatenate(side_by_side, axis=2) for side_by_side in zip(*parts, strict=True)
            ]


def finished(
    colours: Iterator[Pixels],
    greyscale: bool,
    alpha: Pixels | None,
    turn: Callable[[], AbstractContextManager[Any]],
) -> Iterator[Pixels]:
    """Bands of RGB made grey where the photo was, with their part of the alpha plane.

    Each band is made in a turn. What goes wrong then is named, not what a caller does meanwhile.
    """
    top = 0
    while True:
        with turn(), out_of_memory(ADVICE), failures("decoding"):
            band = next(colours, None)
        if band is None:
            return
        if greyscale:
            band = np.asarray(Image.fromarray(band).convert("L"))[..., None]
        if alpha is not None:
            band = np.dstack([band, alpha[top : top + len(band)]])
        top += len(band)
        yield band


def _bands(rows: int, reach: int) -> Iterator[slice]:
    end = 0
    while end < rows:
        begin, end = end, min(rows, end + (HEIGHT if end else first_height(reach)))
        yield slice(begin, end)


def first_height(reach: int) -> int:
    """Of the first band in cells: not all of it can be told at once. All bands are even."""
    return HEIGHT + 2 * (reach // 2 + 2)
