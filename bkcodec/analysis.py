"""The encoder's half: pixels -> z -> symbols, in tiles, the same on every machine.

Networks of the own space run in float64. In float32 the order of a sum, which depends on processor,
threads and library, moves z by up to 1e-4, and with it a symbol in some millions; in float64 by
1e-12, which never met a rounding edge in our tests (docs/reliability.md). It costs 60 ms more for a
768 x 512 photo on two cores. A pretrained VAE is too large for that and keeps its precision.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bkcodec.config import LEVELS
from bkcodec.entropy import Symbols
from bkcodec.models.blocks import interpolate_rows
from bkcodec.models.compression import BkSdmCompression
from bkcodec.tiling import scaled, tile_cells, windows

SYMBOL_MAX = 2**15 - 1
Latent = NDArray[np.float32]


class Analyser:
    """A model's encoder on a device (the CPU where that has no float64)."""

    def __init__(self, model: BkSdmCompression, device: torch.device) -> None:
        self.model, self.device = model, device
        self.is_double = model.config.space == "own"
        if self.is_double:
            self.device = device if device.type != "mps" else torch.device("cpu")
            self._encoder, self._h_a = (
                copy.deepcopy(part).to(self.device).double()
                for part in (model.vae.encoder, model.h_a)
            )
        log_step = model.quantiser.log_step.detach().cpu().double()
        ladder = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
        self.steps: Latent = interpolate_rows(log_step, ladder).exp().float().numpy()

    @torch.inference_mode()
    def analyse(
        self, rgb: NDArray[np.uint8], tile: int | None, keep_y: bool = False
    ) -> tuple[Tensor | None, Latent]:
        """Pixels -> z.

        Args:
            rgb: uint8 [H, W, 3].
            tile: as in ``EncodeOptions``.
            keep_y: whether y is wanted too.

        Returns:
            y float32 [1, latent, ., .] or None, and z float32 [M, h, w].
        """
        height, width = rgb.shape[:2]
        model, stride = self.model, self.model.stride
        rows, columns = -(-height // stride), -(-width // stride)
        y = None
        if keep_y:
            y = torch.empty(1, model.latent, rows * model.factor, columns * model.factor)
        z = np.empty((model.config.M, rows, columns), np.float32)
        side, reach = tiles(model, tile, width, height)
        with _exact_float32(self.device):
            for window in windows(rows, columns, side, reach):
                pixels = rgb[scaled(window.outer, stride)]
                part_y, part = self._networks(torch.from_numpy(pixels.copy()).to(self.device))
                if y is not None:
                    inner = part_y[(..., *scaled(window.inner, model.factor))]
                    y[(..., *scaled(window.core, model.factor))] = inner.cpu()
                z[(..., *window.core)] = part[0][(..., *window.inner)].cpu().numpy()
        return y, z

    def _networks(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = pixels.permute(2, 0, 1)[None]  # [1, 3, H, W], channels last
        if not self.is_double:
            return self.model.analyse(x.float().div_(255))
        y = self._encoder(self.model.pad(x.double().div_(255)))
        return y, self._h_a(y)

    def quantise(self, z: Latent, level: int) -> Symbols:
        """Z [M, h, w] -> symbols int16 at a quality level."""
        symbols = np.empty(z.shape, np.int16)
        for plane, step, out in zip(z, self.steps[level], symbols, strict=True):
            out[:] = np.rint(plane / step).clip(-SYMBOL_MAX, SYMBOL_MAX)
        return symbols


def tiles(model: BkSdmCompression, tile: int | None, width: int, height: int) -> tuple[int, int]:
    """Side of our tiles and their overlap, in cells of z; a VAE may make its own instead."""
    side, reach = tile_cells(tile, width, height, model.stride), model.reach
    if reach is not None:
        return side, reach
    model.vae.use_tiles(side * model.stride)
    return 0, 0


def _exact_float32(device: torch.device) -> AbstractContextManager[None]:
    """No TF32 convolutions on CUDA: its 10-bit mantissa would make symbols wobble."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
