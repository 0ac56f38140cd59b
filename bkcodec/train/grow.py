"""Taking weights over into networks that may be larger."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from bkcodec.models.blocks import adopt_exponents

log = logging.getLogger(__name__)


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
