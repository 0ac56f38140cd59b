"""The weights of integer networks as floats: what the networks in PyTorch are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.networks import Arrays

PIXEL_STEM = "vae.encoder.stem"  # its inputs are pixels, in units of 1/255


def float_state(arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    """Weights, biases and input exponents of all convolutions, by their names in PyTorch.

    They are exact: rounding them to their grids gives the same integers again.
    """
    state: dict[str, NDArray[np.float32]] = {}
    for name in (k.removesuffix(".shift") for k in arrays if k.endswith(".shift")):
        exponent, shift = (arrays[f"{name}.{k}"].astype(np.float64) for k in ("exponent", "shift"))
        unit = np.exp2(exponent - shift) * (255 if name == PIXEL_STEM else 1)
        weight = arrays[f"{name}.weight"] * unit[:, None, None, None]
        state[f"{name}.weight"] = weight.astype(np.float32)
        state[f"{name}.bias"] = (arrays[f"{name}.bias"] * np.exp2(-shift)).astype(np.float32)
        state[f"{name}.input_exponent"] = exponent.astype(np.float32)
    return state
