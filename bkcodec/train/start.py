"""Taking weights over: from smaller networks, and onto the grids of integer networks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bkcodec.models.blocks import Conv, adopt_exponents
from bkcodec.models.compression import BkSdmCompression
from bkcodec.train.losses import DenoisingLoss
from bkcodec.train.quality import spread_evenly

log = logging.getLogger(__name__)

KEPT_VALUES = 4096  # of the inputs of each convolution and batch that grids are measured on
FINER = 3  # grids that are compared: the coarsest clips nothing, each other one is twice as fine


@torch.no_grad()
def take_over(model: nn.Module, state: dict[str, Tensor], keeps_grids: bool = True) -> None:
    """Load weights of the same networks, or of ones with fewer blocks or narrower ones.

    The networks compute what the old ones did: new blocks begin as the identity, and the new parts
    of wider layers are not listened to yet. New outputs start at random, so that both sides learn.
    Without ``keeps_grids`` networks that were on the grids of integers work in floats again.
    """
    if not keeps_grids:
        state = {k: v for k, v in state.items() if not k.endswith(".input_exponent")}
    adopt_exponents(model, state)
    own = model.state_dict()
    fitting = {
        k: v if own[k].shape == v.shape else _widened(k, v, own[k])
        for k, v in state.items()
        if k in own and all(a >= b for a, b in zip(own[k].shape, v.shape, strict=True))
    }
    model.load_state_dict(fitting, strict=False)
    n_wider = sum(state[k].shape != v.shape for k, v in fitting.items())
    log.info("taken over: %d of %d tensors, %d widened", len(fitting), len(own), n_wider)


def _widened(name: str, old: Tensor, fresh: Tensor) -> Tensor:
    """A wider layer's weight or bias: the old one first, zero where old outputs meet new inputs."""
    wide = fresh.clone()
    if ".film." in name:  # gains, then biases
        wide.zero_()
        for part, source in zip(wide.chunk(2), old.chunk(2), strict=True):
            part[: len(source)] = source
        return wide
    if old.ndim == 1:
        wide.zero_()
        wide[: len(old)] = old
        return wide
    wide[: len(old)] = 0
    wide[tuple(slice(n) for n in old.shape)] = old
    return wide


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
        quality = spread_evenly(len(x), generator).to(x.device)
        y, z = model.analyse(x)
        belief = model.believe((z / model.quantiser.step(quality)).round(), quality)
        y_hat = model.denoise_once(belief, quality)
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
