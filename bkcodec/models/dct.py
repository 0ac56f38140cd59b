"""The 16x16 orthonormal DCT as a convolution weight: the transform that training starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

STRIDE = 16

# Rotates R, G, B to one luma and two chroma axes, orthonormal.
_LUMA_CHROMA = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of n samples, [frequency, sample]."""
    k = torch.arange(n, dtype=torch.float32)
    dct = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * n)) * math.sqrt(2 / n)
    dct[0] /= math.sqrt(2)
    return dct


def dct_basis(channels: int) -> Tensor:
    """The ``channels`` DCT basis vectors that carry most energy in photos.

    Returns:
        [channels, 3 * 16 * 16], rows orthonormal, columns in the channel order of
        ``torch.nn.functional.pixel_unshuffle(x, 16)``. Rows are ordered by falling energy
        under the usual 1/f model of natural images, chroma counted as weaker than luma.
    """
    with torch.device("cpu"):  # numbers, also where networks are drafted without any
        return _basis()[:channels]


def _basis() -> Tensor:
    k, dct = torch.arange(STRIDE, dtype=torch.float32), dct_matrix(STRIDE)
    colour = _LUMA_CHROMA / _LUMA_CHROMA.norm(dim=1, keepdim=True)
    basis = torch.einsum("ac,ui,vj->auvcij", colour, dct, dct).reshape(3 * STRIDE**2, -1)

    radius = torch.sqrt(k[:, None] ** 2 + k[None] ** 2)  # [16, 16] spatial frequency
    cost = torch.stack([radius, 1.9 * radius + 3.5, 1.9 * radius + 4.5]).flatten()
    return basis[torch.argsort(cost, stable=True)]
