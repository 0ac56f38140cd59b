"""A coder on the networks in PyTorch: every control, every device, pretrained parts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bkcodec.coding.decoder import denoised, picture_bands
from bkcodec.coding.encoder import Encoder
from bkcodec.coding.refine import Way, refine
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Denoising
from bkcodec.options import DecodeOptions, level_to_position
from bkcodec.prior.levelmap import Levels
from bkcodec.prior.tables import Symbols
from bkcodec.tiling import AUTO_PIXELS, tile_cells

if hasattr(os, "register_at_fork"):
    # A forked process has none of OpenMP's threads, but would wait for them.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class FloatCoder:
    """Pixels to symbols and back.

    Args:
        model: whose networks.
        device: where they are.

    Attributes:
        stride: pixels along a cell of z.
        n_channels: of z.
        timesteps: of the bundle's noise schedule.
        device: cpu, cuda or mps.
        takes_turns: whether it has pretrained parts: threads share these and their settings, and
            how much memory they need is not known.
    """

    def __init__(self, model: BkSdmCompression, device: torch.device) -> None:
        self.model, self._device = model, device
        self.stride, self.n_channels, self.device = model.stride, model.config.M, device.type
        self.timesteps = model.config.train_timesteps
        self.takes_turns = model.space.takes_backbone

    @property
    def encoder(self) -> Encoder:
        """The encoder's half."""
        return Encoder(self.model, self._device)

    def bands(
        self,
        symbols: Symbols,
        levels: int | Levels,
        size: tuple[int, int],
        options: DecodeOptions,
        seed: int,
        timestep: int | None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Symbols -> the picture in bands uint8 [n, W, 3]; see ``decoder.picture_bands``."""
        realism = self._realism(options, levels)
        how = Denoising(options.steps, options.scheduler, seed, realism, timestep)
        return picture_bands(self.model, self._device, symbols, levels, size, options.tile, how)

    def latents(
        self,
        symbols: Symbols,
        levels: int | Levels,
        size: tuple[int, int],
        options: DecodeOptions,
        seed: int,
        timestep: int | None,
    ) -> NDArray[np.float32]:
        """Symbols -> standardised y_hat [C, h, w], which the VAE decoder would see."""
        cells = tile_cells(options.tile, *size, self.stride) * self.model.factor
        realism = self._realism(options, levels)
        how = Denoising(options.steps, options.scheduler, seed, realism, timestep, cells)
        return denoised(self.model, self._device, symbols, levels, how)

    def _realism(self, options: DecodeOptions, levels: int | Levels) -> float:
        """What is asked for, or what is usual at these levels."""
        position = level_to_position(round(float(np.mean(levels))))
        return options.realism_or(self.model.denoiser.usual_realism(position))

    def seen_at_once(self, width: int, height: int, tile: int | None, steps: int) -> int:
        """Pixels of a picture that the networks see at once, about."""
        side = tile_cells(tile, width, height, self.stride) * self.stride
        return max(side**2, AUTO_PIXELS // 2) if side else width * height

    @torch.inference_mode()
    def hints(
        self,
        y: NDArray[np.float32],
        symbols: Symbols,
        level: int,
        size: tuple[int, int],
        tile: int | None,
        effort: int,
        deadline: float,
    ) -> tuple[int | None, int]:
        """Timestep and seed with which a decoder's U-Net comes closest to y; see ``refine``."""
        model, device = self.model, self._device
        position = torch.full((1,), level_to_position(level), device=device)
        latent = torch.from_numpy(y)[None].to(device) / model.y_std
        whole = torch.from_numpy(symbols).to(device)[None].float()
        cells = tile_cells(tile, *size, self.stride) * model.factor
        belief = model.believe(whole, position, cells)

        def error(way: Way) -> float:
            how = Denoising(way.steps, seed=way.seed, timestep=way.timestep, tile=cells)
            y_hat = model.denoiser.run(belief, position, how)
            return float((y_hat - latent).square().mean())

        start = int(model.denoiser.start(position)[0])
        last = min(model.denoiser.timesteps, model.config.train_timesteps) - 1
        return refine(error, start, last, effort, deadline)
