"""The weights of integer networks as floats: what the networks in PyTorch are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.networks import (
    CONDITION_EXPONENT,
    FILM_EXPONENT,
    Y_EXPONENT,
    Z_EXPONENT,
    Arrays,
)

PIXEL_STEM = "vae.encoder.stem"  # in PyTorch it is given 2 x / 255 - 1 for pixels x
# Exponents of what enters the linear paths.
LINEAR_INPUTS = {
    "vae.encoder.linear": 0,
    "h_a.linear": Y_EXPONENT,
    "h_s.linear": Z_EXPONENT,
    "vae.decoder.linear": Y_EXPONENT,
}


def float_state(arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    """Weights of convolutions, modulations and linear paths, by their names in PyTorch.

    They are exact: rounding them to their grids gives the same integers again. (But for the biases
    of what sees the pixels, of which float32 holds all but some units of 2^-27.)
    """
    if not arrays:
        return {}
    return _convolutions(arrays) | _modulations(arrays) | _linear_paths(arrays)


def _convolutions(arrays: Arrays) -> dict[str, NDArray[np.float32]]:
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


def _modulations(arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    units = {"weight": FILM_EXPONENT, "bias": CONDITION_EXPONENT + FILM_EXPONENT}
    return {
        f"{name}.{kind}": (arrays[f"{name}.{kind}"] * 2.0**-exponent).astype(np.float32)
        for name in (k.removesuffix(".weight") for k in arrays if k.endswith(".film.weight"))
        for kind, exponent in units.items()
    }


def _linear_paths(arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    """In PyTorch y is not standardised, and pixels are in -1..1."""
    state: dict[str, NDArray[np.float32]] = {}
    y_std = arrays["y_std"].astype(np.float64)
    for name, of_input in LINEAR_INPUTS.items():
        exponent = int(arrays[f"{name}.exponent"][0])
        weight = arrays[f"{name}.weight"] * 2.0**-exponent
        bias = arrays[f"{name}.bias"] * 2.0 ** -(exponent + of_input)
        if name == "vae.encoder.linear":
            weight *= 127.5
            bias += weight.sum(axis=1)
        elif name == "h_s.linear":
            weight, bias = weight * y_std[:, None], bias * y_std
        elif name == "vae.decoder.linear":
            weight, bias = weight / (127.5 * y_std), (bias - 127.5) / 127.5
        state[f"{name}.weight"] = weight[:, :, None, None].astype(np.float32)
        state[f"{name}.bias"] = bias.astype(np.float32)
    return state
