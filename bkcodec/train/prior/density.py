"""The density of what is coded first: CompressAI's EntropyBottleneck at any step size."""

from __future__ import annotations

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor


class ContinuousPrior(EntropyBottleneck):
    """One learned cumulative per channel, shared by all qualities.

    z does not depend on the quality, only its step size does, so one density c of the unscaled z
    serves every rate: P(symbol k) = c((k + 1/2) step) - c((k - 1/2) step). For noisy training
    values z + u, u uniform over one step, the same difference is the exact density of z + u times
    the step (Balle et al. 2018, arXiv:1802.01436, appendix 6.1).

    z is divided by ``z_std`` first, so that all channels start alike. The quantiles (and with them
    the auxiliary loss of CompressAI) are not used: exported tables come from counted symbols.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, init_scale=4)
        self.quantiles.requires_grad_(False)
        self.register_buffer("z_std", torch.ones(channels))

    def bits(self, z: Tensor, step: Tensor) -> Tensor:
        """Information of each z [B, C, h, w] (a multiple of ``step`` [B, C, 1, 1], or noisy)."""
        scale = self.z_std[None, :, None, None]
        half = (step / scale / 2).expand_as(z)
        lower, upper = (
            self._cumulative_logits(z / scale - half),
            self._cumulative_logits(z / scale + half),
        )
        sign = -torch.sign(lower + upper).detach()  # the side where sigmoid does not saturate
        p = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return -torch.log2(p.clamp_min(1e-9))

    def cumulative(self, v: Tensor) -> Tensor:
        """Learned cumulative at v [C, n] (units of z) -> [C, n] in 0..1."""
        logits = self._logits_cumulative(v[:, None] / self.z_std[:, None, None], True)
        return torch.sigmoid(logits)[:, 0]

    def _cumulative_logits(self, v: Tensor) -> Tensor:
        b, c, h, w = v.shape
        rows = v.permute(1, 0, 2, 3).reshape(c, 1, -1)
        logits = self._logits_cumulative(rows, stop_gradient=False)
        return logits.reshape(c, b, h, w).permute(1, 0, 2, 3)
