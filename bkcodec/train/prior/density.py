"""The density of what is coded first: a learned cumulative per channel, at any step size."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (1, 3, 3, 3, 3, 1)  # of the chain of small layers that makes a cumulative
START_SCALE = 4.0  # a fresh cumulative rises over about this many z_std on both sides of zero


class ContinuousPrior(nn.Module):
    """One learned cumulative per channel, shared by all qualities.

    z does not depend on the quality, only its step size does, so one density c of the unscaled z
    serves every rate: P(symbol k) = c((k + 1/2) step) - c((k - 1/2) step). For noisy training
    values z + u, u uniform over one step, the same difference is the exact density of z + u times
    the step.

    The cumulative is the one of Balle et al. 2018 (arXiv:1802.01436, appendix 6.1): c = sigmoid of
    a chain of layers x -> g(H x + b), g(x) = x + a tanh(x), the last one without g. H = softplus of
    what is learned and a = tanh of it, so no layer can fall: c is a cumulative whatever is learned.

    z is divided by ``z_std`` first, so that all channels start alike. Exported tables come from
    counted symbols, so nothing has to be learned about where the density ends.

    Args:
        channels: of z that it codes.
    """

    z_std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.matrices, self.biases, self.factors = (nn.ParameterList() for _ in range(3))
        slope = START_SCALE ** (-1 / (len(WIDTHS) - 1))  # of each layer: 1 / START_SCALE in all
        for inputs, outputs in pairwise(WIDTHS):
            unconstrained = math.log(math.expm1(slope / outputs))  # softplus gives slope / outputs
            self.matrices.append(torch.full((channels, outputs, inputs), unconstrained))
            self.biases.append(torch.rand(channels, outputs, 1) - 0.5)
        for outputs in WIDTHS[1:-1]:
            self.factors.append(torch.zeros(channels, outputs, 1))
        self.register_buffer("z_std", torch.ones(channels))
        _register_leftovers(self, channels)

    def bits(self, z: Tensor, step: Tensor) -> Tensor:
        """Information of each z [B, C, h, w] (a multiple of ``step`` [B, C, 1, 1], or noisy)."""
        scale = self.z_std[None, :, None, None]
        half = (step / scale / 2).expand_as(z)
        lower, upper = (self._by_cell(z / scale + side) for side in (-half, half))
        sign = -torch.sign(lower + upper).detach()  # the side where sigmoid does not saturate
        p = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return -torch.log2(p.clamp_min(1e-9))

    def cumulative(self, v: Tensor) -> Tensor:
        """Learned cumulative at v [C, n] (units of z) -> [C, n] in 0..1."""
        return torch.sigmoid(self.logits(v[:, None] / self.z_std[:, None, None]))[:, 0]

    def logits(self, v: Tensor) -> Tensor:
        """The chain of layers: v [C, 1, n] (units of z_std) -> logits of the cumulative there."""
        last = len(self.matrices) - 1
        for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            v = F.softplus(matrix) @ v + bias
            if k < last:
                v = v + torch.tanh(self.factors[k]) * torch.tanh(v)
        return v

    def _by_cell(self, v: Tensor) -> Tensor:
        b, c, h, w = v.shape
        rows = v.permute(1, 0, 2, 3).reshape(c, 1, -1)
        return self.logits(rows).reshape(c, b, h, w).permute(1, 0, 2, 3)


def _register_leftovers(prior: nn.Module, channels: int) -> None:
    """Tensors that nothing reads: the density used to be CompressAI's, whose module has them.

    Checkpoints are compared by their names, so with these the ones of then go on.
    """
    prior.register_buffer("quantiles", torch.tensor([-4.0, 0.0, 4.0]).repeat(channels, 1, 1))
    for name in ("_offset", "_quantized_cdf", "_cdf_length"):
        prior.register_buffer(name, torch.zeros(0, dtype=torch.int32))
    prior.register_buffer("target", torch.zeros(3))
    prior.likelihood_lower_bound = nn.Module()
    prior.likelihood_lower_bound.register_buffer("bound", torch.zeros(1))
