"""The decoder's half: symbols -> pixels, in tiles, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bkcodec.analysis import tiles
from bkcodec.config import LEVELS, DecodeOptions
from bkcodec.container import Container
from bkcodec.entropy import Symbols
from bkcodec.levelmap import Levels
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.diffusion import Denoising
from bkcodec.tiling import Slices, scaled, tile_cells, windows, within


@torch.inference_mode()
def picture_bands(
    model: BkSdmCompression, device: torch.device, symbols: Symbols, levels: int | Levels,
    container: Container, options: DecodeOptions,
) -> Iterator[NDArray[np.uint8]]:  # fmt: skip
    """Symbols int16 [M, h, w] of one level, or one level a cell -> the picture in bands [n, W, 3].

    With a single step of our own U-Net each tile goes from symbols to pixels on its own. With
    several, and with a pretrained U-Net, which sees everything, y_hat is made as a whole.
    """
    quality = torch.from_numpy(np.atleast_1d(levels)).to(device) / (LEVELS - 1)
    seed = container.seed if options.seed is None else options.seed
    width, height, stride = container.width, container.height, container.stride
    rows, columns = container.z_shape
    texture = options.realism if options.steps > 1 else 0.0
    is_local = model.config.space == "own" and options.steps == 1
    latent_tile = 0 if is_local else tile_cells(options.tile, width, height, stride) * model.factor
    how = Denoising(
        options.steps, options.scheduler, seed, options.realism, container.timestep, latent_tile
    )

    def sample(window: Slices) -> torch.Tensor:
        part = torch.from_numpy(symbols[(..., *window)]).to(device)[None].float()
        own = quality if quality.ndim == 1 else quality[window][None]
        return model.sample(part, own, how)

    y_hat = None if is_local else sample((slice(0, rows), slice(0, columns)))
    side, reach = tiles(model, options.tile, width, height)
    wide = reach + (model.latent_reach if is_local else 0)
    wide += wide % 2  # windows of the U-Net begin at even cells
    for near, far in zip(
        windows(rows, columns, side, reach), windows(rows, columns, side, wide), strict=True
    ):
        if y_hat is None:
            part = sample(far.outer)[(..., *within(near.outer, far.outer))]
        else:
            part = y_hat[(..., *scaled(near.outer, model.factor))]
        size = tuple(n * model.vae.stride for n in part.shape[2:])
        x_hat = model.reconstruct(part, size, texture)[0]
        pixels = x_hat[(..., *scaled(near.inner, stride))].clamp(0, 1).mul(255).round()
        core_rows, core_columns = scaled(near.core, stride)
        if not core_columns.start:
            band = np.empty((min(core_rows.stop, height) - core_rows.start, width, 3), np.uint8)
        place = band[:, core_columns]  # what goes over the picture's edge is cut off
        shown = pixels.to(torch.uint8).permute(1, 2, 0)[: place.shape[0], : place.shape[1]]
        place[:] = shown.cpu().numpy()
        if core_columns.stop >= width:
            yield band
