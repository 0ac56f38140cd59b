"""Checkpoints: weights, averaged weights and Adam's state in one safetensors file, no pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bkcodec.errors import InputError, first_line
from bkcodec.models.blocks import adopt_exponents
from bkcodec.models.compression import BkSdmCompression
from bkcodec.train.record import RECORD

# What reading a damaged folder raises.
BROKEN = (OSError, SafetensorError, KeyError, ValueError, RuntimeError, TypeError)
# Files of a run's folder.
VALIDATION, BEST = "validation.json", "best.safetensors"
KEPT = 2  # checkpoints
ADAPTER = "lora_"  # in the names of a LoRA's weights


def save_checkpoint(
    folder: Path,
    networks: nn.Module,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write ``checkpoint_STEP.safetensors``; a kill leaves it out or leaves it whole."""
    tensors: dict[str, Tensor] = {}
    tensors |= {f"networks/{k}": v for k, v in _own(networks).items()}
    tensors |= {f"ema/{k}": v for k, v in _own(ema).items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{k}": v for k, v in slots.items()}
    path = folder / f"checkpoint_{state['step']:07d}.safetensors"
    _write(path, tensors, state)
    for old in sorted(folder.glob("checkpoint_*.safetensors"))[:-KEPT]:
        old.unlink()


def save_averaged(folder: Path, ema: AveragedModel, figures: dict[str, Any]) -> None:
    """Write the averaged weights alone, with their validation figures, as the run's best."""
    _write(folder / BEST, {f"ema/{k}": v for k, v in _own(ema).items()}, figures)


def _own(networks: nn.Module) -> dict[str, Tensor]:
    """The state without what pretrained parts brought along; a LoRA on them is ours."""
    models = [m for m in networks.modules() if isinstance(m, BkSdmCompression)]
    borrowed = ["model.backbone.unet."]
    if not all(m.has_own_vae for m in models):
        borrowed.append("model.vae.")
    return {
        k: v
        for k, v in networks.state_dict().items()
        if ADAPTER in k or not k.removeprefix("module.").startswith(tuple(borrowed))
    }


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step in a run's folder."""
    return max(folder.glob("checkpoint_*.safetensors"), default=None)


def load_checkpoint(
    path: Path, networks: nn.Module, ema: AveragedModel, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Load everything back; returns the state that was saved with it.

    Raises:
        InputError: damaged, or of other networks.
    """
    parts: dict[str, dict[str, Tensor]] = {"networks": {}, "ema": {}, "adam": {}}
    try:
        with safe_open(path, "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            for key in file.keys():  # noqa: SIM118 (not a dict)
                part, name = key.split("/", 1)
                parts[part][name] = file.get_tensor(key)
        for module, part in ((networks, parts["networks"]), (ema, parts["ema"])):
            adopt_exponents(module, part)
            if part.keys() != _own(module).keys():
                raise KeyError("other networks")
            module.load_state_dict(part, strict=False)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["adam"].items():
            index, slot = name.split("/")
            slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
        _match_layouts(optimizer)
    except BROKEN as error:
        raise InputError(f"{path}: cannot be resumed ({first_line(error)})") from error
    return state


def _match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Give Adam's slots the memory layout of their weights, which its fused step relies on."""
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if value.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter).copy_(value)


def load_run(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """A run's record and its best averaged weights: those of the "model" and of the "prior".

    The record gets the validation figures of these weights as "validation"; the paths that only
    ``--resume`` needs are left out.

    Raises:
        InputError: not a run's folder, or one without a checkpoint.
    """
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        figures, parts = _load_averaged(folder / BEST)
        record["options"], record["model"], record["command"]
        record.pop("request", None)
    except BROKEN as error:
        summary = first_line(error)
        raise InputError(f"{folder}: not a run's folder with a checkpoint ({summary})") from error
    return {**record, "validation": figures}, parts


def _load_averaged(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "prior": {}}
    with safe_open(path, "pt") as file:
        figures: dict[str, Any] = json.loads(file.metadata()["state"])
        for key in file.keys():  # noqa: SIM118 (not a dict)
            for name, part in parts.items():
                prefix = f"ema/module.{name}."
                if key.startswith(prefix):
                    part[key.removeprefix(prefix)] = file.get_tensor(key)
    return figures, parts


def _write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    # Copies: averaged weights share what is frozen, and a safetensors file wants it twice.
    tensors = {
        k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()
    }
    write_tensors(path, tensors, {"state": json.dumps(state)})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, there whole or not at all, and open to whom the umask says."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    mode = temporary.stat().st_mode
    save_file(tensors, temporary, metadata)  # makes a file for the owner alone
    temporary.chmod(mode)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
