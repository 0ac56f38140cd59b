"""The critic of the texture phase."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
