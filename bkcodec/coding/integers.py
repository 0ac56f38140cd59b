"""Encoder and decoder on integer networks: the same symbols and pixels on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.runtime import Runtime
from bkcodec.options import DecodeOptions
from bkcodec.prior.levelmap import Levels
from bkcodec.prior.parts import SYMBOL_MAX
from bkcodec.prior.tables import Symbols
from bkcodec.tiling import scaled, tile_cells, windows, within

if TYPE_CHECKING:
    from bkcodec.coding.floats import FloatCoder

STRIDE = 16  # pixels along a cell of z

Latent = NDArray[np.float32]


class IntegerEncoder:
    """The encoder's half; see ``coding.encoder.Encoder``.

    Args:
        runtime: the networks.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def analyse(
        self, rgb: NDArray[np.uint8], tile: int | None, keep_y: bool = False
    ) -> tuple[Latent | None, Latent]:
        """Pixels uint8 [H, W, 3] -> y [M, h, w] where it is wanted, and z in whole units."""
        height, width = rgb.shape[:2]
        rows, columns = -(-height // STRIDE), -(-width // STRIDE)
        n_channels = self.runtime.steps.shape[1]
        z = np.empty((n_channels, rows, columns), np.float32)
        y = np.empty_like(z) if keep_y else None
        for window in windows(
            rows, columns, tile_cells(tile, width, height, STRIDE), self.runtime.encoder_reach
        ):
            pixels = rgb[scaled(window.outer, STRIDE)]
            edges = [(0, -n % STRIDE) for n in pixels.shape[:2]]
            part_y, part = self.runtime.analyse(np.pad(pixels, (*edges, (0, 0)), mode="edge"))
            z[(..., *window.core)] = part[(..., *window.inner)]
            if y is not None:
                y[(..., *window.core)] = part_y[(..., *window.inner)]
        return y, z

    def quantise(self, z: Latent, levels: int | Levels) -> Symbols:
        """z [M, h, w] -> symbols int16 at a quality level, or at that of each cell [h, w]."""
        symbols = np.empty(z.shape, np.int16)
        for plane, steps, out in zip(z, self.runtime.steps.T, symbols, strict=True):
            whole = np.rint(plane.astype(np.float64) / steps[levels])
            out[:] = whole.clip(-SYMBOL_MAX, SYMBOL_MAX)
        return symbols


class IntegerCoder:
    """Pixels to symbols and back without PyTorch; what it cannot do, a ``FloatCoder`` does.

    Args:
        runtime: the networks.
        floats: makes that one, when it is needed: for several steps, another realism, ``--effort``.

    Attributes: see ``FloatCoder``.
    """

    stride, device, takes_turns = STRIDE, "cpu", False

    def __init__(self, runtime: Runtime, floats: Callable[[], FloatCoder]) -> None:
        self.runtime, self._floats = runtime, floats
        self.encoder = IntegerEncoder(runtime)
        self.n_channels, self.timesteps = runtime.steps.shape[1], runtime.timesteps

    def bands(
        self,
        symbols: Symbols,
        levels: int | Levels,
        size: tuple[int, int],
        options: DecodeOptions,
        seed: int,
        timestep: int | None,
    ) -> Iterator[NDArray[np.uint8]]:
        """See ``FloatCoder``."""
        if (options.steps, options.realism) != (1, 1.0):
            return self._floats().bands(symbols, levels, size, options, seed, timestep)
        return integer_bands(self.runtime, symbols, levels, size, options.tile, timestep)

    def hints(
        self,
        y: Latent,
        symbols: Symbols,
        level: int,
        size: tuple[int, int],
        tile: int | None,
        effort: int,
        deadline: float,
    ) -> tuple[int | None, int]:
        """See ``FloatCoder``."""
        return self._floats().hints(y, symbols, level, size, tile, effort, deadline)


def integer_bands(
    runtime: Runtime,
    symbols: Symbols,
    levels: int | Levels,
    size: tuple[int, int],
    tile: int | None,
    timestep: int | None,
) -> Iterator[NDArray[np.uint8]]:
    """Symbols -> the picture in bands uint8 [n, W, 3], from top to bottom, in one step.

    Args:
        runtime: the networks.
        symbols: int16 [M, h, w].
        levels: of all cells, or of each [h, w].
        size: width and height of the picture in pixels.
        tile: as in ``DecodeOptions``.
        timestep: at which the U-Net starts; None = what the level says.
    """
    (width, height), (rows, columns) = size, symbols.shape[1:]
    side = tile_cells(tile, width, height, STRIDE)
    for window in windows(rows, columns, side, runtime.decoder_reach):
        own = levels if isinstance(levels, int) else levels[window.outer]
        pixels = runtime.synthesise(symbols[(..., *window.outer)], own, timestep)
        part = pixels[scaled(within(window.core, window.outer), STRIDE)]
        core_rows, core_columns = scaled(window.core, STRIDE)
        if not core_columns.start:
            band = np.empty((min(core_rows.stop, height) - core_rows.start, width, 3), np.uint8)
        place = band[:, core_columns]  # what is over the picture's edge is cut off
        place[:] = part[: place.shape[0], : place.shape[1]]
        if core_columns.stop >= width:
            yield band
