"""Checkpoints: weights, averaged weights and Adam's state in one safetensors file, no pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

NAME = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, networks: nn.Module, ema: AveragedModel, optimizer: torch.optim.Optimizer,
    step: int, elapsed: float,
) -> None:  # fmt: skip
    """Replace the folder's checkpoint; a kill leaves the old one or the new one."""
    tensors: dict[str, Tensor] = {}
    tensors |= {f"networks/{k}": v for k, v in networks.state_dict().items()}
    tensors |= {f"ema/{k}": v for k, v in ema.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{k}": v for k, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    temporary = folder / (NAME + ".tmp")
    save_file(tensors, temporary, {"state": json.dumps({"step": step, "elapsed": elapsed})})
    os.replace(temporary, folder / NAME)


def load_checkpoint(
    folder: Path, networks: nn.Module, ema: AveragedModel, optimizer: torch.optim.Optimizer | None
) -> tuple[int, float]:
    """Load everything back; returns the step and the seconds trained so far."""
    parts: dict[str, dict[str, Tensor]] = {"networks": {}, "ema": {}, "adam": {}}
    with safe_open(folder / NAME, "pt") as file:
        state = json.loads(file.metadata()["state"])
        for key in file.keys():  # noqa: SIM118 (not a dict)
            part, name = key.split("/", 1)
            parts[part][name] = file.get_tensor(key)
    networks.load_state_dict(parts["networks"])
    ema.load_state_dict(parts["ema"])
    if optimizer is not None:
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["adam"].items():
            index, slot = name.split("/")
            slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return state["step"], state["elapsed"]


def load_averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the model in a run's checkpoint."""
    prefix = "ema/module.model."
    with safe_open(folder / NAME, "pt") as file:
        keys = [k for k in file.keys() if k.startswith(prefix)]  # noqa: SIM118 (not a dict)
        return {k.removeprefix(prefix): file.get_tensor(k) for k in keys}
