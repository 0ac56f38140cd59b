"""Perceptual losses: LPIPS with the SqueezeNet backbone, and a patch critic."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bkcodec.errors import InputError

TAPS = (1, 4, 7, 9, 10, 11, 12)  # layers of SqueezeNet 1.1's features that LPIPS compares


class Lpips(nn.Module):
    """LPIPS-SQ (Zhang et al. 2018, arXiv:1801.03924, version 0.1), weights from a file.

    Args:
        path: .safetensors with torchvision's ``features.N...`` of SqueezeNet 1.1 and the linear
            heads ``lpips.linN.model.1.weight``.

    Raises:
        InputError: not such a file.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        from torchvision.models import squeezenet1_1  # slow to import

        try:
            arrays = load_file(path)
            self.features = squeezenet1_1(weights=None).features
            self.features.load_state_dict(
                {k.removeprefix("features."): v for k, v in arrays.items() if k[:9] == "features."}
            )
            heads = [arrays[f"lpips.lin{i}.model.1.weight"].float() for i in range(len(TAPS))]
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            summary = str(error).splitlines()[0]
            raise InputError(f"{path}: not a file of LPIPS-SQ weights ({summary})") from error
        self.heads = nn.ParameterList(heads)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[None, :, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[None, :, None, None])
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two batches [B, 3, H, W] in 0..1, sides of 32 at least -> distances [B]."""
        total = torch.zeros(len(a), device=a.device)
        pairs = zip(self._taps(a), self._taps(b), self.heads, strict=True)
        for first, second, head in pairs:
            total = total + F.conv2d((first - second).square(), head).mean(dim=(1, 2, 3))
        return total

    def _taps(self, x: Tensor) -> list[Tensor]:
        x, found = (x - self.mean) / self.std, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found


class Discriminator(nn.Module):
    """A patch critic (Isola et al. 2017, arXiv:1611.07004) with spectral norms.

    x [B, 3, H, W] in 0..1 -> scores [B, 1, H/8, W/8], about; positive means real.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        sizes = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(sizes, sizes[1:], strict=False):
            conv = nn.Conv2d(n_in, n_out, 4, stride=2, padding=1)
            layers += [nn.utils.parametrizations.spectral_norm(conv), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.layers(x * 2 - 1)
        return scores

    def frozen(self, x: Tensor) -> Tensor:
        """As ``forward``; the gradient reaches x but not the critic."""
        parameters = {k: v.detach() for k, v in self.named_parameters()}
        scores: Tensor = torch.func.functional_call(self, parameters, (x,))
        return scores
