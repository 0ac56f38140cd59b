"""The vae phase: a custom VAE learns the latent space of a pretrained one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.lpips import Lpips
from bkcodec.models.sd.parts import SdVae
from bkcodec.train.objectives.shared import Stats
from bkcodec.train.objectives.similarity import ms_ssim
from bkcodec.train.options import TrainOptions

MSE_WEIGHT = 20.0  # of the squared error in 0..1 units, against 1 - MS-SSIM


class VaeObjective(nn.Module):
    """A custom VAE learns the latent space of a pretrained one, both halves on their own.

    The encoder learns the teacher's latents, the decoder to make photos of them. Files are coded
    from either VAE's latents, and all that they depend on is frozen.
    """

    def __init__(self, model: BkSdmCompression, teacher: SdVae, options: TrainOptions) -> None:
        super().__init__()
        self.model, self.options = model, options
        self.teacher = teacher.requires_grad_(False)
        self.lpips = Lpips(Path(options.lpips)) if options.lpips else None
        model.requires_grad_(False)
        model.vae.requires_grad_(True)

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """As ``JointObjective``; nothing here is random."""
        del generator
        x = self.model.pad(x)
        with torch.no_grad():
            y = self.teacher.encode(x)
        y_error = (self.model.vae.encode(x) - y).square().mean()
        x_hat = self.model.vae.decode(y)
        mse = (x_hat - x).square().mean()
        with torch.autocast(x.device.type, enabled=False):
            dissimilarity = 1 - ms_ssim(x_hat.float(), x).mean()
        loss = y_error + MSE_WEIGHT * mse + dissimilarity
        if self.lpips is not None and self.options.lpips_weight:
            perceived = self.lpips(x_hat.clamp(0, 1), x).mean()
            loss = loss + self.options.lpips_weight * perceived
        return loss, {"loss": loss, "y_mse": y_error, "mse": mse, "ms_ssim": 1 - dissimilarity}
