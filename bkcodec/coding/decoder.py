"""The decoder's half: symbols -> pixels, in tiles, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Denoising
from bkcodec.options import MAX_LEVEL
from bkcodec.prior.levelmap import Levels
from bkcodec.prior.tables import Symbols
from bkcodec.tiling import Slices, scaled, tile_cells, windows, within


@torch.inference_mode()
def denoised(
    model: BkSdmCompression,
    device: torch.device,
    symbols: Symbols,
    levels: int | Levels,
    how: Denoising,
) -> NDArray[np.float32]:
    """Symbols -> standardised y_hat [C, h, w] of the whole picture; see ``picture_bands``."""
    position = torch.from_numpy(np.atleast_1d(levels)).to(device) / MAX_LEVEL
    own = position if position.ndim == 1 else position[None]
    y_hat = model.sample(torch.from_numpy(symbols).to(device)[None].float(), own, how)
    latents: NDArray[np.float32] = y_hat[0].float().cpu().numpy()
    return latents


@torch.inference_mode()
def picture_bands(
    model: BkSdmCompression,
    device: torch.device,
    symbols: Symbols,
    levels: int | Levels,
    size: tuple[int, int],
    tile: int | None,
    how: Denoising,
) -> Iterator[NDArray[np.uint8]]:
    """Symbols -> the picture in bands uint8 [n, W, 3], from top to bottom.

    With a single step of our own U-Net each tile goes from symbols to pixels on its own. With
    several, and with a pretrained U-Net, which sees everything, y_hat is made as a whole.

    Args:
        model: what the symbols were made with.
        device: where its networks are.
        symbols: int16 [M, h, w].
        levels: of all cells, or of each [h, w].
        size: width and height of the picture in pixels.
        tile: as in ``DecodeOptions``.
        how: of denoising; its tile is set here.
    """
    (width, height), stride = size, model.stride
    rows, columns = symbols.shape[1:]
    position = torch.from_numpy(np.atleast_1d(levels)).to(device) / MAX_LEVEL
    texture = how.realism if how.steps > 1 else 0.0
    is_local = model.space.is_local and how.steps == 1
    if not is_local:
        how = replace(how, tile=tile_cells(tile, width, height, stride) * model.factor)

    def sample(window: Slices) -> torch.Tensor:
        part = torch.from_numpy(symbols[(..., *window)]).to(device)[None].float()
        own = position if position.ndim == 1 else position[window][None]
        return model.sample(part, own, how)

    y_hat = None if is_local else sample((slice(0, rows), slice(0, columns)))
    side, reach = model.space.tiles(model, tile, width, height)
    wide = reach + (model.space.latent_reach(model) if is_local else 0)
    wide += wide % 2  # windows of the U-Net begin at even cells
    for near, far in zip(
        windows(rows, columns, side, reach), windows(rows, columns, side, wide), strict=True
    ):
        if y_hat is None:
            part = sample(far.outer)[(..., *within(near.outer, far.outer))]
        else:
            part = y_hat[(..., *scaled(near.outer, model.factor))]
        padded = (part.shape[2] * model.vae.stride, part.shape[3] * model.vae.stride)
        x_hat = model.reconstruct(part, padded, texture)[0]
        pixels = x_hat[(..., *scaled(near.inner, stride))].clamp(0, 1).mul(255).round()
        core_rows, core_columns = scaled(near.core, stride)
        if not core_columns.start:
            band = np.empty((min(core_rows.stop, height) - core_rows.start, width, 3), np.uint8)
        place = band[:, core_columns]  # what goes over the picture's edge is cut off
        shown = pixels.to(torch.uint8).permute(1, 2, 0)[: place.shape[0], : place.shape[1]]
        place[:] = shown.cpu().numpy()
        if core_columns.stop >= width:
            yield band
