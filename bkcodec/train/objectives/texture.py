"""The texture phase: looks, not distortion."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Belief, Denoising
from bkcodec.models.lpips import Lpips
from bkcodec.train.objectives.critic import Discriminator
from bkcodec.train.objectives.shared import Stats, uniform
from bkcodec.train.options import TrainOptions

CHAIN_LENGTHS = (2, 6)  # of the sampling chains that are trained on
MSE_WEIGHT = 40.0  # of the squared error, in 0..1 units
OWN_TOP = 0.45  # the highest position that our own space trains on
SINGLE_SHARE = 0.5  # in the other: of the batches that train the single step, where it learns too


class TextureObjective(nn.Module):
    """Looks, not distortion: what several denoising steps give, judged by LPIPS and a critic.

    The U-Net's texture branch runs a whole sampling chain, as the decoder does, of which the last
    step gets the gradient. All else is frozen, so files keep decoding.

    In the own space the VAE decoder's texture blocks learn too: they add detail that y cannot say;
    one-step pictures stay as they are. In the "sd" space the VAE is somebody else's, all of the
    custom U-Net learns, and half of the batches train its single step for the same loss without a
    critic.
    """

    def __init__(self, model: BkSdmCompression, options: TrainOptions) -> None:
        super().__init__()
        if options.lpips is None:
            raise ValueError("the texture phase needs the LPIPS weights")
        self.model, self.options = model, options
        self.lpips = Lpips(Path(options.lpips))
        self.critic = Discriminator() if options.adversarial_weight else None
        model.requires_grad_(False)
        self.single_share = 0.0
        parts = [model.unet]
        if not model.space.takes_backbone:
            decoder, unet = model.vae.decoder, model.unet
            parts = [unet.texture_after, unet.texture_head, decoder.texture, decoder.texture_head]
        else:
            self.single_share = SINGLE_SHARE
        for part in parts:
            part.requires_grad_(True)

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """As ``JointObjective``; the loss of the critic is part of the sum."""
        model, options = self.model, self.options
        top = 1.0 if model.space.takes_backbone else OWN_TOP
        chosen = float(uniform((1,), generator, x)) * top
        position = torch.full((len(x),), chosen, device=x.device)
        with torch.no_grad():
            _, z = model.analyse(x)
            symbols = (z / model.quantiser.step(position)).round()
            belief = model.believe(symbols, position)
        single = float(uniform((1,), generator, x)) < self.single_share
        if single:
            y_hat = model.denoiser.once(belief, position)
        else:
            y_hat = self._sample(belief, position, generator)
        x_hat = model.reconstruct(y_hat, (x.shape[-2], x.shape[-1]), texture=1.0)
        mse = (x_hat - x).square().mean()
        perceived = self.lpips(x_hat.clamp(0, 1), x).mean()
        loss = options.lpips_weight * perceived + MSE_WEIGHT * mse
        stats = {"lpips": perceived, "mse": mse}
        if self.critic is not None:
            # Hinge loss; the critic's own gradient and the generator's do not mix.
            real, fake = self.critic(x), self.critic(x_hat.detach())
            criticism = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            convincing = -self.critic.frozen(x_hat).mean()
            weight = 0.0 if single else options.adversarial_weight
            loss = loss + weight * convincing + criticism
            stats |= {"critic": criticism, "convincing": convincing}
        return loss, stats | {"loss": loss}

    def _sample(self, belief: Belief, position: Tensor, generator: torch.Generator) -> Tensor:
        """The prediction at a random position of a sampling chain of random length."""
        start = self.model.denoiser.start(position)
        low, high = CHAIN_LENGTHS
        steps = int(torch.randint(low, high + 1, (1,), generator=generator))
        last = int(torch.randint(0, steps, (1,), generator=generator))
        seed = int(torch.randint(0, 2**31, (1,), generator=generator))
        how = Denoising(steps, seed=seed)
        return self.model.denoiser.chain(belief, start, how, last + 1, gradient_at=last)
