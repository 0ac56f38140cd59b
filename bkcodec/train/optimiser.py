"""The optimiser of a training run: Adam, at rates that differ by what a weight does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.98)
# Factors of the learning rate: of the DCT matrices, all other networks, quantisation steps, the
# context prior, and the density that codes its first phase.
RATES = {"slow": 1 / 20, "networks": 1.0, "steps": 8.0, "context": 3.0, "first": 8.0}
SLOW = ("vae.encoder.linear", "vae.decoder.linear", "h_a.linear", "h_s.linear")

Groups = list[dict[str, Any]]


def parameter_groups(networks: nn.ModuleDict, lr: float) -> Groups:
    """The trainable weights of {"model": ..., "prior": ...} by their learning rates."""
    groups: dict[str, list[Tensor]] = {name: [] for name in RATES}
    for name, parameter in networks.named_parameters():
        if parameter.requires_grad:
            groups[_group_of(name)].append(parameter)
    return [
        {"params": groups[name], "lr": lr * rate, "base_lr": lr * rate}
        for name, rate in RATES.items()
        if groups[name]
    ]


def adam(groups: Groups) -> torch.optim.Optimizer:
    """One kernel for all weights (fused), without weight decay."""
    return torch.optim.AdamW(groups, betas=BETAS, weight_decay=0.0, fused=True)


def _group_of(name: str) -> str:
    if name.removeprefix("model.").startswith(SLOW):
        return "slow"
    if name.startswith("prior."):
        return "first" if name.startswith("prior.first.") else "context"
    return "steps" if ".quantiser." in name else "networks"
