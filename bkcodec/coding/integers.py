"""Encoder and decoder on integer networks: the same symbols and pixels on every machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from bkcodec.coding.bands import WIDEST, first_height, in_bands
from bkcodec.coding.refine import Way, refine
from bkcodec.engine.runtime import Map, Runtime, as_map, empty_map, float_y, pixels, real
from bkcodec.engine.sampling import Latents, sample
from bkcodec.machine import n_threads
from bkcodec.options import DecodeOptions
from bkcodec.prior.levelmap import Levels
from bkcodec.prior.parts import SYMBOL_MAX
from bkcodec.prior.tables import Symbols
from bkcodec.tiling import Slices, Window, scaled, tile_cells, windows

if TYPE_CHECKING:
    from bkcodec.coding.floats import FloatCoder
    from bkcodec.engine.streaming import Stream

STRIDE = 16  # pixels along a cell of z
WORKERS = 2  # so many tiles are worked on at the same time, where there are threads for it
SHARED = 1.2  # pixels of strips against those of the picture, about
LATENT_TILES = 2  # so many tiles wide are windows of what works on cells alone

Latent = NDArray[np.float32]
T = TypeVar("T")


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
        grid = -(-height // STRIDE), -(-width // STRIDE)
        z = np.empty((self.runtime.steps.shape[1], *grid), np.float32)
        y = np.empty_like(z) if keep_y else None
        side = tile_cells(tile, width, height, STRIDE)
        stream = self.runtime.stream("analysis") if side and tile is None else None
        if stream is None:
            self._in_tiles(rgb, y, z, side)
        else:
            _in_bands(stream, rgb, y, z)
        return y, z

    def _in_tiles(self, rgb: NDArray[np.uint8], y: Latent | None, z: Latent, side: int) -> None:
        def analyse(runtime: Runtime, place: Slices) -> tuple[Latent, Latent]:
            return runtime.analyse(whole_cells(rgb, place))

        tiles = list(windows(z.shape[1], z.shape[2], side, self.runtime.reach.analysis))
        for window, (part_y, part_z) in _each(analyse, self.runtime, tiles):
            z[(..., *window.core)] = part_z[(..., *window.inner)]
            if y is not None:
                y[(..., *window.core)] = part_y[(..., *window.inner)]

    def quantise(self, z: Latent, levels: int | Levels) -> Symbols:
        """z [M, h, w] -> symbols int16 at a quality level, or at that of each cell [h, w]."""
        symbols = np.empty(z.shape, np.int16)
        for plane, steps, out in zip(z, self.runtime.steps.T, symbols, strict=True):
            whole = np.rint(plane.astype(np.float64) / steps[levels])
            out[:] = whole.clip(-SYMBOL_MAX, SYMBOL_MAX)
        return symbols

    def scaled(self, z: Latent, levels: int | Levels) -> Latent:
        """z [M, h, w] -> symbols float32 [M, h, w] that are not rounded yet."""
        planes = zip(z, self.runtime.steps.T, strict=True)
        scaled: Latent = np.stack([p / s[levels] for p, s in planes]).astype(np.float32)
        return scaled


class IntegerCoder:
    """Pixels to symbols and back without PyTorch, but for diffusers' other schedulers.

    Args:
        runtime: the networks.
        floats: makes a ``FloatCoder`` where one is needed.

    Attributes: see ``FloatCoder``.
    """

    stride, takes_turns = STRIDE, False

    def __init__(self, runtime: Runtime, floats: Callable[[], FloatCoder]) -> None:
        self.runtime, self._floats, self.device = runtime, floats, runtime.device
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
        if options.steps > 1 and options.scheduler != "ddim":
            return self._floats().bands(symbols, levels, size, options, seed, timestep)
        runtime, reach, grid = self.runtime, self.runtime.reach, symbols.shape[1:]
        side, once = tile_cells(options.tile, *size, STRIDE), options.steps == 1
        realism = options.realism_or(1.0)
        if once and realism == 1 and options.tile is None and isinstance(levels, int):
            stream = runtime.stream("synthesis") if side else None
            if stream is not None:

                def feed(place: Slices) -> dict[str, Map]:
                    return runtime.code(symbols[(..., *place)], levels, timestep)

                return _cut(in_bands(stream, feed, grid), size)
        if once and realism == 1 and not 0 < side < max(grid):

            def make(runtime: Runtime, place: Slices) -> NDArray[np.uint8]:
                return runtime.synthesise(symbols[(..., *place)], _at(levels, place), timestep)

            return _bands(make, runtime, grid, size, side, reach.synthesis)
        y_hat = self._denoised(symbols, levels, side, options, seed, timestep)
        texture = 0.0 if once else realism

        def show(runtime: Runtime, place: Slices) -> NDArray[np.uint8]:
            return runtime.picture(y_hat[(..., *place)], texture)

        return _bands(show, runtime, grid, size, side, reach.picture)

    def latents(
        self,
        symbols: Symbols,
        levels: int | Levels,
        size: tuple[int, int],
        options: DecodeOptions,
        seed: int,
        timestep: int | None,
    ) -> Latent:
        """See ``FloatCoder``."""
        if options.steps > 1 and options.scheduler != "ddim":
            return self._floats().latents(symbols, levels, size, options, seed, timestep)
        side = tile_cells(options.tile, *size, STRIDE)
        return float_y(self._denoised(symbols, levels, side, options, seed, timestep))

    def _denoised(
        self,
        symbols: Symbols,
        levels: int | Levels,
        side: int,
        options: DecodeOptions,
        seed: int,
        timestep: int | None,
    ) -> Map:
        """Standardised y_hat [M, h, w], in tiles of so many cells."""
        belief = Belief(self.runtime, symbols, levels, LATENT_TILES * side)
        y_hat = belief.denoised(options.steps, seed, timestep)
        realism = options.realism_or(1.0)
        if realism == 1:
            return y_hat
        mean = real(belief.mean)
        return as_map(mean + realism * (real(y_hat) - mean))

    def seen_at_once(self, width: int, height: int, tile: int | None, steps: int) -> int:
        """Pixels of a picture that the networks see at once, about."""
        side = tile_cells(tile, width, height, STRIDE)
        if not side:
            return width * height
        if tile is None and steps < 2:
            reach = self.runtime.reach.synthesis if steps else self.runtime.reach.analysis
            strips = min(width, WORKERS * WIDEST * STRIDE)  # that are worked on at once
            return int(SHARED * first_height(reach) * STRIDE * strips)
        return WORKERS * (side * STRIDE) ** 2

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
        belief = Belief(self.runtime, symbols, level, tile_cells(tile, *size, STRIDE))
        standardised = y / self.runtime.y_std[:, None, None].astype(np.float64)

        def error(way: Way) -> float:
            y_hat = real(belief.denoised(way.steps, way.seed, way.timestep))
            difference = y_hat - standardised
            return float(np.square(difference).mean())

        start = int(self.runtime.start[level])
        return refine(error, start, self.timesteps - 1, effort, deadline)


class Belief:
    """What the decoder knows about y of one picture, and what the U-Net makes of it.

    Args:
        runtime: the networks.
        symbols: int16 [M, h, w].
        levels: of all cells, or of each [h, w].
        side: of the windows that the networks see, in cells; 0 = all at once.

    Attributes:
        mean, log_scale: maps of y [M, h, w].
    """

    def __init__(self, runtime: Runtime, symbols: Symbols, levels: int | Levels, side: int) -> None:
        self.runtime, self.levels, self.side = runtime, levels, side
        self.mean, self.log_scale = empty_map(symbols.shape), empty_map(symbols.shape)
        rows, columns = symbols.shape[1:]

        def know(runtime: Runtime, place: Slices) -> tuple[Map, Map]:
            return runtime.know(symbols[(..., *place)], _at(levels, place))

        tiles = list(windows(rows, columns, side, runtime.reach.knowledge))
        for window, known in _each(know, runtime, tiles):
            for whole, new in zip((self.mean, self.log_scale), known, strict=True):
                whole[(..., *window.core)] = new[(..., *window.inner)]

    def denoised(self, steps: int, seed: int, timestep: int | None) -> Map:
        """The clean y [M, h, w]; see ``DecodeOptions`` and ``sampling.sample``."""
        if steps == 1:
            return self._predict(self.mean, timestep, is_only=True)
        start = timestep
        if start is None:
            start = round(float(self.runtime.start[self.levels].mean()))

        def predict(y_t: Latents, t: int) -> Latents:
            return real(self._predict(as_map(y_t), t, is_only=False))

        known = real(self.mean), real(self.log_scale)
        y_hat = as_map(sample(predict, known, self.runtime.schedule, start, steps, seed))
        is_colour = self.runtime.is_colour
        y_hat[is_colour] = self.denoised(1, seed, timestep)[is_colour]
        return y_hat

    def _predict(self, y_t: Map, timestep: int | None, is_only: bool) -> Map:
        y_hat, (rows, columns) = empty_map(y_t.shape), y_t.shape[1:]

        def predict(runtime: Runtime, place: Slices) -> Map:
            part, mean, log_scale = (x[(..., *place)] for x in (y_t, self.mean, self.log_scale))
            levels = _at(self.levels, place)
            return runtime.predict(part, (mean, log_scale), levels, timestep, is_only)

        tiles = list(windows(rows, columns, self.side, self.runtime.reach.prediction))
        for window, new in _each(predict, self.runtime, tiles):
            y_hat[(..., *window.core)] = new[(..., *window.inner)]
        return y_hat


def _at(levels: int | Levels, place: Slices) -> int | Levels:
    return levels if isinstance(levels, int) else levels[place]


def whole_cells(rgb: NDArray[np.uint8], place: Slices) -> NDArray[np.uint8]:
    """The pixels of some cells; at the edges of the picture the last ones are repeated."""
    pixels = rgb[scaled(place, STRIDE)]
    edges = [(0, -n % STRIDE) for n in pixels.shape[:2]]
    return np.pad(pixels, (*edges, (0, 0)), mode="edge")


def _in_bands(stream: Stream, rgb: NDArray[np.uint8], y: Latent | None, z: Latent) -> None:
    """Fill z and y from top to bottom."""

    def feed(place: Slices) -> dict[str, NDArray[np.uint8]]:
        return {"pixels": whole_cells(rgb, place).transpose(2, 0, 1)}

    ends = [0, 0]
    for parts in in_bands(stream, feed, z.shape[1:]):
        for i, (whole, part) in enumerate(zip((z, y), parts, strict=True)):
            begin, ends[i] = ends[i], ends[i] + part.shape[1]
            if whole is not None:
                whole[:, begin : ends[i]] = float_y(part) if i else part


def _cut(parts: Iterator[list[Map]], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Bands of whole cells, cut to a picture of this width and height."""
    width, left = size
    for part in parts:
        band = pixels(part)[:left, :width]
        left -= len(band)
        if len(band):
            yield band


def _bands(
    make: Callable[[Runtime, Slices], NDArray[np.uint8]],
    runtime: Runtime,
    grid: tuple[int, ...],
    size: tuple[int, int],
    side: int,
    reach: int,
) -> Iterator[NDArray[np.uint8]]:
    """The picture in bands uint8 [n, W, 3], from top to bottom.

    Args:
        make: cells -> their pixels, with these networks.
        runtime: the networks.
        grid: rows and columns of cells.
        size: width and height of the picture in pixels.
        side: of a tile in cells.
        reach: so many cells around matter for the pixels of a cell.
    """
    (width, height), (rows, columns) = size, grid
    tiles = list(windows(rows, columns, side, reach))
    for window, whole in _each(make, runtime, tiles):
        part = whole[scaled(window.inner, STRIDE)]
        core_rows, core_columns = scaled(window.core, STRIDE)
        if not core_columns.start:
            band = np.empty((min(core_rows.stop, height) - core_rows.start, width, 3), np.uint8)
        place = band[:, core_columns]  # what is over the picture's edge is cut off
        place[:] = part[: place.shape[0], : place.shape[1]]
        if core_columns.stop >= width:
            yield band


def _each(
    work: Callable[[Runtime, Slices], T], runtime: Runtime, tiles: list[Window]
) -> Iterator[tuple[Window, T]]:
    """What work makes of each tile, in order; some of them at the same time."""
    if len(tiles) == 1:
        yield tiles[0], work(runtime, tiles[0].outer)
        return
    workers = min(WORKERS, n_threads())
    shared = runtime.among(workers)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Window, Future[T]]] = deque()
        for tile in tiles:
            waiting.append((tile, pool.submit(work, shared, tile.outer)))
            if len(waiting) == workers:
                done, result = waiting.popleft()
                yield done, result.result()
        for done, result in waiting:
            yield done, result.result()
