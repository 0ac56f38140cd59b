"""The prior phase: the rate of rounded symbols alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bkcodec.models.compression import BkSdmCompression
from bkcodec.train.objectives.shared import Stats, latents
from bkcodec.train.options import TrainOptions
from bkcodec.train.positions import draw_positions, spread_evenly
from bkcodec.train.prior.network import ContextNetwork


class PriorObjective(nn.Module):
    """The rate of rounded symbols alone; the transforms stay as they are."""

    def __init__(
        self, model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions
    ) -> None:
        super().__init__()
        self.model, self.prior, self.options = model, prior, options

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """x [B, 3, H, W] in 0..1, or latents -> the loss (a scalar) and figures to report."""
        with torch.no_grad():
            z = self.model.h_a(latents(self.model, x))
            position = spread_evenly(len(x), generator).to(x.device)
            if not self.model.space.takes_backbone:  # those networks know no maps
                position = draw_positions(len(x), z.shape[2], z.shape[3], generator).to(x.device)
            step = self.model.quantiser.step(position)
            symbols = (z / step).round()
        with torch.autocast(x.device.type, enabled=False):
            bits = self.prior.bits(symbols * step, symbols, step, position)
        bpp = bits / self.model.stride**2
        lam = self.options.lambda_at(position if position.ndim == 3 else position[:, None, None])
        loss = (bpp / (20 * lam.sqrt())).mean()
        return loss, {"loss": loss, "bpp": bpp.mean()}
