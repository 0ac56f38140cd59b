"""The weights of integer networks as floats: what the networks in PyTorch are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.networks import Arrays

PIXEL_STEM = "vae.encoder.stem"  # in PyTorch it is given 2 x / 255 - 1 for pixels x


def float_state(arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    """Weights, biases and input exponents of all convolutions, by their names in PyTorch.

    They are exact: rounding them to their grids gives the same integers again.
    """
    state: dict[str, NDArray[np.float32]] = {}
    for name in (k.removesuffix(".shift") for k in arrays if k.endswith(".shift")):
        exponent, shift = (arrays[f"{name}.{k}"].astype(np.float64) for k in ("exponent", "shift"))
        weight, bias = (arrays[f"{name}.{k}"].astype(np.float64) for k in ("weight", "bias"))
        if name == PIXEL_STEM:
            bias += 127.5 * weight.sum(axis=(1, 2, 3))
            weight *= 127.5
        unit = np.exp2(exponent - shift)[:, None, None, None]
        state[f"{name}.weight"] = (weight * unit).astype(np.float32)
        state[f"{name}.bias"] = (bias * np.exp2(-shift)).astype(np.float32)
        state[f"{name}.input_exponent"] = exponent.astype(np.float32)
    return state
