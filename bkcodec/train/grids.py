"""Finding the grids of integer networks for a model's convolutions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bkcodec.models.blocks import Conv
from bkcodec.models.compression import BkSdmCompression
from bkcodec.train.objectives.shared import DenoisingLoss
from bkcodec.train.positions import spread_evenly

KEPT_VALUES = 4096  # of the inputs of each convolution and batch that grids are measured on
FINER = 3  # grids that are compared: the coarsest clips nothing, each other one is twice as fine


@torch.no_grad()
def measure_grids(
    model: BkSdmCompression, batches: Iterable[Tensor], generator: torch.Generator
) -> None:
    """Put the convolutions of a model onto grids that fit its inputs over some batches of photos.

    Of the power-of-two grids the one with the least squared error is taken: a finer one than the
    largest input asks for may be better, though it clips.
    """
    inputs: dict[Conv, list[Tensor]] = {}

    def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Conv)
        flat = given[0].detach().float().flatten()
        some = flat[torch.randint(len(flat), (KEPT_VALUES,), generator=generator).to(flat.device)]
        inputs.setdefault(layer, []).append(torch.cat([some, flat.abs().amax()[None]]))

    layers = [layer for layer in model.modules() if isinstance(layer, Conv)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    denoising = DenoisingLoss(model)
    for x in batches:
        position = spread_evenly(len(x), generator).to(x.device)
        y, z = model.analyse(x)
        belief = model.believe((z / model.quantiser.step(position)).round(), position)
        y_hat = model.denoiser.once(belief, position)
        model.reconstruct(y_hat, (x.shape[-2], x.shape[-1]), texture=1.0)
        denoising(y / model.y_std, belief, generator)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        layer.input_exponent = _best_exponent(layer, torch.cat(inputs[layer]))[None]


def _best_exponent(layer: Conv, values: Tensor) -> Tensor:
    low, high, unit = layer.grid
    largest = values.abs().amax().clamp_min(1e-6)
    coarsest = torch.log2(high * unit / largest).floor()
    errors = {}
    for exponent in (coarsest + finer for finer in range(FINER)):
        step = unit * torch.exp2(-exponent)
        on_grid = (values / step).round().clamp(low, high) * step
        errors[exponent] = float((values - on_grid).square().mean())
    return min(errors, key=errors.__getitem__)
