"""From trained networks on the grids of integers to the arrays of integer networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bkcodec.engine.floats import LINEAR_INPUTS
from bkcodec.engine.networks import (
    CONDITION_EXPONENT,
    FILM_EXPONENT,
    Z_EXPONENT,
    Arrays,
)
from bkcodec.engine.sampling import spread_table
from bkcodec.models.blocks import PIXELS, SUM_MAX, WEIGHT_MAX, Conv, Film, timestep_embedding
from bkcodec.models.compression import BkSdmCompression
from bkcodec.options import LEVELS

BIAS_MAX = 2**19  # of a convolution, in units of its sums
# Of the weights of linear paths.
LINEAR_EXPONENTS = {
    "vae.encoder.linear": 27,
    "h_a.linear": 20,
    "h_s.linear": 20,
    "vae.decoder.linear": 16,
}


def has_grids(model: BkSdmCompression) -> bool:
    """Whether all convolutions are on grids of integers, and there are some."""
    layers = [layer for layer in model.modules() if isinstance(layer, Conv)]
    return bool(layers) and all(layer.input_exponent is not None for layer in layers)


@torch.no_grad()
def integer_arrays(model: BkSdmCompression) -> Arrays:
    """All arrays of a model in our own space, whose convolutions are on grids."""
    arrays: Arrays = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Conv):
            arrays |= {f"{name}.{k}": v for k, v in _convolution(layer).items()}
        elif isinstance(layer, Film):
            arrays |= {f"{name}.{k}": v for k, v in _film(layer).items()}
    y_std, vae = model.vae.y_std.double(), model.vae
    arrays["y_std"] = _numpy(y_std).astype(np.float32)
    linear = {
        "vae.encoder.linear": _of_pixels(*_linear(vae.encoder.linear)),
        "h_a.linear": _linear(model.h_a.get_submodule("linear")),
        "h_s.linear": _linear(model.h_s.get_submodule("linear"), per_output=1 / y_std),
        "vae.decoder.linear": _linear(
            vae.decoder.linear, per_input=y_std, per_output=127.5, offset=127.5
        ),
    }
    for name, (weight, bias) in linear.items():
        of_weights, of_input = LINEAR_EXPONENTS[name], LINEAR_INPUTS[name]
        arrays[f"{name}.weight"] = _whole(weight * 2.0**of_weights)
        arrays[f"{name}.bias"] = _whole(bias * 2.0 ** (of_weights + of_input))
        arrays[f"{name}.exponent"] = np.array([of_weights], np.int8)
    ladder = torch.linspace(0, 1, LEVELS)
    arrays["embedding"] = _whole(model.embedding(ladder)[:, :, 0, 0] * 2**CONDITION_EXPONENT)
    time = model.unet.time(timestep_embedding(torch.arange(model.config.train_timesteps)))
    arrays["time"] = _whole(time * 2**CONDITION_EXPONENT)
    arrays["alphas"] = np.cumprod(1 - model.denoiser.betas.astype(np.float64))
    arrays["spreads"] = spread_table()
    arrays["steps"] = model.quantiser.exact_steps()
    arrays["start"] = _whole(model.denoiser.start(ladder))
    one = torch.ones(LEVELS, model.config.M, 1, 1)
    scale = model.quantiser.dequantise(one, ladder)[:, :, 0, 0]
    arrays["dequantise"] = _whole(scale * 2**Z_EXPONENT)
    return arrays


def _convolution(layer: Conv) -> Arrays:
    """Weights, biases and exponents; a sum times 2^-shift is what it stands for."""
    if layer.input_exponent is None:
        raise ValueError("a convolution without a grid")
    exponent = float(layer.input_exponent[0])
    weight = layer.weight.double()
    largest = weight.abs().amax(dim=(1, 2, 3))
    reach = weight.abs().sum(dim=(1, 2, 3)) * max(layer.grid.high, -layer.grid.low)
    least = torch.maximum(largest / WEIGHT_MAX, reach / SUM_MAX).clamp_min(1e-12)
    assert layer.bias is not None
    # Weights that are tiny beside their bias get no finer than what the bias leaves room for.
    room = layer.bias.double().abs().clamp_min(1e-12) * 2.0**exponent / BIAS_MAX
    power = torch.log2(torch.maximum(least * layer.grid.unit, room)).ceil()
    unit = torch.exp2(power) / layer.grid.unit
    whole = (weight / unit[:, None, None, None]).round().clamp(-WEIGHT_MAX, WEIGHT_MAX)
    shift = exponent - power
    bias = layer.bias.double() * torch.exp2(shift)
    if layer.grid is PIXELS:  # sums are in units twice as large
        shift = shift - 1
        bias = (bias - 255 * whole.sum(dim=(1, 2, 3))) / 2
    bias = bias.round()
    return {
        "weight": _numpy(whole).astype(np.int8),
        "bias": _numpy(bias).astype(np.int32),
        "shift": _numpy(shift).astype(np.int8),
        "exponent": np.array([exponent], np.int8),
    }


def _film(layer: Film) -> Arrays:
    unit = CONDITION_EXPONENT + FILM_EXPONENT
    return {
        "weight": _whole(layer.weight * 2**FILM_EXPONENT),
        "bias": _whole(layer.bias * 2.0**unit),
    }


def _linear(
    layer: nn.Module,
    per_input: Tensor | float = 1.0,
    per_output: Tensor | float = 1.0,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weights [outputs, inputs] and biases of a 1x1 convolution between scaled maps."""
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    weight, bias = layer.weight[:, :, 0, 0].double(), layer.bias.double()
    scale = torch.as_tensor(per_output, dtype=torch.float64)
    weight = weight * scale.reshape(-1, 1) * torch.as_tensor(per_input, dtype=torch.float64)
    return weight, bias * scale + offset


def _of_pixels(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """For inputs x of 0..255, what weights and biases are for 2 x / 255 - 1."""
    return weight * 2 / 255, bias - weight.sum(dim=1)


def _whole(x: Tensor) -> NDArray[np.integer[Any]]:
    """Rounded, in the smallest of three types that holds all."""
    rounded = _numpy(x.double().round())
    largest = np.abs(rounded).max()
    kind = next(t for t in (np.int16, np.int32, np.int64) if largest <= np.iinfo(t).max)
    whole: NDArray[np.integer[Any]] = rounded.astype(kind)
    return whole


def _numpy(x: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = x.detach().cpu().double().numpy()
    return array
