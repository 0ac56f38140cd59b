"""The encoder's half in floating point: pixels -> z -> symbols, in tiles.

The order of a sum, which depends on processor, threads and library, moves z by up to 1e-4, and with
it a symbol in some millions: the same photo may give other bytes on another machine, of a file that
everyone decodes alike. Integer networks (``bkcodec.coding.integers``) give the same ones.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from bkcodec.models.compression import BkSdmCompression
from bkcodec.prior.parts import SYMBOL_MAX
from bkcodec.prior.tables import Symbols
from bkcodec.tiling import scaled, windows

Latent = NDArray[np.float32]


class Encoder:
    """A model's encoder on a device."""

    def __init__(self, model: BkSdmCompression, device: torch.device) -> None:
        self.model, self.device = model, device
        self.steps: Latent = model.quantiser.exact_steps()

    @torch.inference_mode()
    def analyse(
        self, rgb: NDArray[np.uint8], tile: int | None, keep_y: bool = False
    ) -> tuple[Latent | None, Latent]:
        """Pixels -> z.

        Args:
            rgb: uint8 [H, W, 3].
            tile: as in ``EncodeOptions``.
            keep_y: whether y is wanted too.

        Returns:
            y float32 [latent, ., .] or None, and z float32 [M, h, w].
        """
        height, width = rgb.shape[:2]
        model, stride = self.model, self.model.stride
        rows, columns = -(-height // stride), -(-width // stride)
        y: Latent | None = None
        if keep_y:
            y = np.empty((model.latent, rows * model.factor, columns * model.factor), np.float32)
        z = np.empty((model.config.M, rows, columns), np.float32)
        side, reach = model.space.tiles(model, tile, width, height)
        with _exact_float32(self.device):
            for window in windows(rows, columns, side, reach):
                pixels = rgb[scaled(window.outer, stride)]
                x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]  # channels last
                part_y, part = model.analyse(x.to(self.device).float().div_(255))
                if y is not None:
                    inner = part_y[0][(..., *scaled(window.inner, model.factor))]
                    y[(..., *scaled(window.core, model.factor))] = inner.cpu().numpy()
                z[(..., *window.core)] = part[0][(..., *window.inner)].cpu().numpy()
        return y, z

    def quantise(self, z: Latent, levels: int | NDArray[np.uint8]) -> Symbols:
        """z [M, h, w] -> symbols int16 at a quality level, or at that of each cell [h, w]."""
        symbols = np.empty(z.shape, np.int16)
        for plane, steps, out in zip(z, self.steps.T, symbols, strict=True):
            out[:] = np.rint(plane / steps[levels]).clip(-SYMBOL_MAX, SYMBOL_MAX)
        return symbols


def _exact_float32(device: torch.device) -> AbstractContextManager[None]:
    """No TF32 convolutions on CUDA: its 10-bit mantissa would make symbols wobble."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
