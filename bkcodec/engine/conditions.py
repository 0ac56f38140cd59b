"""Gains and biases of modulated blocks, at a quality level or at that of each cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.networks import (
    BIAS_LIMIT,
    CONDITION_EXPONENT,
    FILM_BITS,
    FILM_EXPONENT,
    GAIN_EXPONENT,
    GAIN_LIMIT,
    Arrays,
)

Maps = dict[str, NDArray[np.float32]]


class Conditions:
    """Makes the maps of gains and biases that programs are given.

    Args:
        arrays: of the bundle.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.names = [k.removesuffix(".weight") for k in arrays if k.endswith(".film.weight")]

    def maps(self, levels: int | NDArray[np.uint8], timestep: int | None = None) -> Maps:
        """``NAME.gain`` and ``NAME.bias`` [C, 1, 1] for a level, [C, h, w] for levels [h, w].

        ``timestep``: of the U-Net; None = where denoising starts at each level.
        """
        unique, inverse = np.unique(levels, return_inverse=True)
        shape = np.shape(levels) or (1, 1)
        quality = self.arrays["embedding"][unique].astype(np.int64)  # [n, E]
        steps = self.arrays["start"][unique] if timestep is None else np.array([timestep])
        timed = quality + self.arrays["time"][steps]
        maps: Maps = {}
        for name in self.names:
            gain, bias = self._film(name, timed if name.startswith("unet.") else quality)
            for kind, rows in (("gain", gain), ("bias", bias)):
                picked = rows[inverse.ravel()].T.reshape(-1, *shape)
                maps[f"{name}.{kind}"] = picked.astype(np.float32)
        return maps

    def _film(self, name: str, conditions: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
        """Conditions [n, E] -> gains and biases [n, C], whole numbers."""
        weight, offset = (self.arrays[f"{name}.{k}"].astype(np.int64) for k in ("weight", "bias"))
        gain, bias = np.split(conditions @ weight.T + offset, 2, axis=1)
        unit = CONDITION_EXPONENT + FILM_EXPONENT
        inner = int(self.arrays[f"{name.removesuffix('film')}conv.exponent"][0])
        gains = np.rint((gain + 2**unit) * 2.0 ** (GAIN_EXPONENT - unit))
        biases = np.rint(bias * 2.0 ** (inner + FILM_BITS + GAIN_EXPONENT - unit))
        return gains.clip(-GAIN_LIMIT, GAIN_LIMIT), biases.clip(-BIAS_LIMIT, BIAS_LIMIT)
