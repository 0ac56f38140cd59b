"""LPIPS, a perceptual distance, with weights from a file that the user names.

Zhang et al. 2018, arXiv:1801.03924, version 0.1. The networks are torchvision's.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bkcodec.errors import InputError, first_line

# Layers of torchvision's ``features`` that are compared, by network.
TAPS = {
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
}
LABELS = {"squeeze": "lpips-sq", "alex": "lpips-alex", "vgg": "lpips-vgg"}
MIN_SIDE = 64  # pixels; below, the deepest features of some networks are empty


class Lpips(nn.Module):
    """LPIPS with the network that the file holds.

    Args:
        path: .safetensors with torchvision's ``features.N...`` of SqueezeNet 1.1, AlexNet or
            VGG-16, and the linear heads ``lpips.linN.model.1.weight`` (or without ``lpips.``).

    Raises:
        InputError: not such a file.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path}: not a file of LPIPS weights (no such file)")
        try:
            arrays = {k.removeprefix("lpips."): v.float() for k, v in load_file(path).items()}
            self.kind = _kind_of(arrays)
            self.taps = TAPS[self.kind]
            self.features = _features(self.kind)
            self.features.load_state_dict(
                {k.removeprefix("features."): v for k, v in arrays.items() if k[:9] == "features."}
            )
            heads = [arrays[f"lin{i}.model.1.weight"] for i in range(len(self.taps))]
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            summary = first_line(error)
            raise InputError(f"{path}: not a file of LPIPS weights ({summary})") from error
        self.heads = nn.ParameterList(heads)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[None, :, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[None, :, None, None])
        self.eval().requires_grad_(False)

    @property
    def label(self) -> str:
        """Name of the metric: lpips-sq, lpips-alex or lpips-vgg."""
        return LABELS[self.kind]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two batches [B, 3, H, W] in 0..1, sides of 64 at least -> distances [B]."""
        total = torch.zeros(len(a), device=a.device)
        pairs = zip(self._taps(a), self._taps(b), self.heads, strict=True)
        for first, second, head in pairs:
            total = total + F.conv2d((first - second).square(), head).mean(dim=(1, 2, 3))
        return total

    def _taps(self, x: Tensor) -> list[Tensor]:
        x, taps = (x - self.mean) / self.std, []
        for index, layer in enumerate(self.features[: self.taps[-1] + 1]):
            x = layer(x)
            if index in self.taps:
                taps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return taps


def _kind_of(arrays: dict[str, Tensor]) -> str:
    if "features.3.squeeze.weight" in arrays:
        return "squeeze"
    if "features.28.weight" in arrays:
        return "vgg"
    if "features.10.weight" in arrays:
        return "alex"
    raise KeyError("neither SqueezeNet, AlexNet nor VGG-16")


def _features(kind: str) -> nn.Sequential:
    from torchvision import models  # slow to import

    make = {"squeeze": models.squeezenet1_1, "alex": models.alexnet, "vgg": models.vgg16}[kind]
    features: nn.Sequential = make(weights=None).features
    return features
