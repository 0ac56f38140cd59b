"""The objectives of a training step."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.lpips import Lpips
from bkcodec.models.compression import Belief, BkSdmCompression
from bkcodec.models.diffusion import Denoising, beta_schedule
from bkcodec.models.sd import SdVae
from bkcodec.train.context import ContextNetwork
from bkcodec.train.critic import Discriminator
from bkcodec.train.options import TrainOptions
from bkcodec.train.quality import draw_qualities, spread_evenly
from bkcodec.train.similarity import ms_ssim

# 1 - MS-SSIM weighted like this trades against rate as one squared 8-bit level does with MSE
# (ratio of the two published lambda ladders of CompressAI, about 1270 at every quality).
MS_SSIM_TO_MSE = 1270.0
CHROMA_WEIGHT = 0.5  # of the squared error of mean chroma in 8 x 8 pixels: faint colours stay
COLOUR_WEIGHT, MEAN_SIDE = 1.0, 32  # of that of mean colours in squares of so many pixels
ROUND_TRIP_SHARE = 0.08  # part of the samples in which the VAE decoder sees y itself
DIFFUSION_WEIGHT = 0.1
SCALE_WEIGHT = 0.02
TEXTURE_STEPS = (2, 6)  # lengths of the chains that the texture phase trains on
TEXTURE_QUALITY = 0.45  # the highest quality that it trains on
SINGLE_SHARE = 0.5  # of the batches that train the single step, where it learns too
VAE_MSE = 20.0  # weight of the squared error in 0..1 units, against 1 - MS-SSIM
TEXTURE_MSE = 40.0  # weight of the squared error, in 0..1 units

Stats = dict[str, Tensor]


class DenoisingLoss:
    """Squared error of the x0-prediction at random noise levels, given what h_s knows.

    A quarter of a batch is enough: this is the cheaper task, and every U-Net pass costs time.
    """

    def __init__(self, model: BkSdmCompression) -> None:
        self.model, c = model, model.config
        betas = beta_schedule(c.schedule, c.train_timesteps)
        self.alphas_cumprod = torch.from_numpy(1 - betas).cumprod(dim=0)
        self.t_max = min(c.t_coarsest + 50, c.train_timesteps)

    def __call__(self, target: Tensor, belief: Belief, generator: torch.Generator) -> Tensor:
        """Standardised y and what is known about it -> a scalar."""
        some = -(-len(target) // 4)
        clean, mean, log_scale, embedding = (part[:some].detach() for part in (target, *belief[:3]))
        t = torch.randint(0, self.t_max, (len(clean),), generator=generator)
        alpha = self.alphas_cumprod[t].to(clean.device)[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        y_t = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        embedding = self.model.unet.condition(embedding, t.to(clean.device))
        predicted: Tensor = self.model.unet(y_t, mean, log_scale, embedding, texture=True)
        return (predicted - clean).square().mean()


class Objective(nn.Module):
    """rate + lambda * distortion, the denoising loss and the scale's likelihood.

    Every sample of a batch has its own quality, or with a level map every block of it. The rate
    sees z with uniform noise, the decoder rounded z through a straight-through gradient (Minnen and
    Singh 2020, arXiv:2007.08739). In the decoder phase there is no rate: symbols stay as they are.
    """

    def __init__(
        self, model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions
    ) -> None:
        super().__init__()
        self.model, self.prior, self.options = model, prior, options
        model.vae.decoder.texture.requires_grad_(False)  # these wait for the texture phase
        model.vae.decoder.texture_head.requires_grad_(False)
        self.has_rate = options.phase != "decoder"
        if not self.has_rate:
            for part in (model.vae.encoder, model.h_a, prior):
                part.requires_grad_(False)
            model.quantiser.log_step.requires_grad_(False)
        self.lpips = Lpips(Path(options.lpips)) if options.lpips else None
        self.denoising = DenoisingLoss(model)

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """X [B, 3, H, W] in 0..1 -> the loss (a scalar) and figures to report."""
        model, options = self.model, self.options
        batch = x.shape[0]
        y, z = model.analyse(x)
        quality = draw_qualities(batch, z.shape[2], z.shape[3], generator).to(x.device)
        step = model.quantiser.step(quality)
        noisy, symbols = quantised(z, step, generator)
        bpp = torch.zeros_like(z[:, 0])
        if self.has_rate:
            with torch.autocast(x.device.type, enabled=False):
                bpp = self.prior.bits(noisy, symbols, step, quality) / model.stride**2

        z_hat = model.quantiser.dequantise(symbols, quality)
        belief = model.hyper_synthesis(z_hat, quality)
        mean, log_scale, embedding, _ = belief
        y_hat = model.denoise_once(belief, quality)
        target = y / model.y_std
        round_trip = uniform((batch,), generator, x) < ROUND_TRIP_SHARE
        y_hat = torch.where(round_trip[:, None, None, None], target, y_hat)
        x_hat = model.reconstruct(y_hat, (x.shape[-2], x.shape[-1]))

        error = x_hat - x
        mse = _per_cell(error.square(), model.stride)
        with torch.autocast(x.device.type, enabled=False):
            dissimilarity = 1 - ms_ssim(x_hat, x)
        share = options.ms_ssim_weight
        distortion = 255**2 * ((1 - share) * mse + _colour_error(error, model.stride))
        by_picture = share * MS_SSIM_TO_MSE * dissimilarity
        if self.lpips is not None and options.lpips_weight:
            perceived = self.lpips(x_hat.clamp(0, 1), x)
            by_picture = by_picture + options.lpips_weight * MS_SSIM_TO_MSE * perceived
        distortion = distortion + by_picture[:, None, None]
        lam = options.lambda_at(quality if quality.ndim == 3 else quality[:, None, None])
        # Divided by sqrt(lambda), all qualities pull about equally hard.
        cost = ((bpp + lam * distortion) / (20 * lam.sqrt())).mean()

        surprise = (target - mean).detach()
        likelihood = (0.5 * (surprise * torch.exp(-log_scale)).square() + log_scale).mean()
        denoising = self.denoising(target, belief, generator)
        loss = cost + SCALE_WEIGHT * likelihood + DIFFUSION_WEIGHT * denoising
        mse = mse.mean(dim=(1, 2)).clamp_min(1e-9)
        return loss, {
            "loss": cost, "noisy_bpp": bpp.mean(), "psnr": -10 * torch.log10(mse).mean(),
            "ms_ssim": 1 - dissimilarity.mean(), "scale_nll": likelihood, "denoising": denoising,
        }  # fmt: skip


class PriorObjective(nn.Module):
    """The rate of rounded symbols alone; the transforms stay as they are."""

    def __init__(
        self, model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions
    ) -> None:
        super().__init__()
        self.model, self.prior, self.options = model, prior, options

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """As ``Objective``."""
        with torch.no_grad():
            z = self.model.h_a(latents(self.model, x))
            quality = spread_evenly(len(x), generator).to(x.device)
            if self.model.config.space == "own":  # networks of the other space know no maps
                quality = draw_qualities(len(x), z.shape[2], z.shape[3], generator).to(x.device)
            step = self.model.quantiser.step(quality)
            symbols = (z / step).round()
        with torch.autocast(x.device.type, enabled=False):
            bits = self.prior.bits(symbols * step, symbols, step, quality)
        bpp = bits / self.model.stride**2
        lam = self.options.lambda_at(quality if quality.ndim == 3 else quality[:, None, None])
        loss = (bpp / (20 * lam.sqrt())).mean()
        return loss, {"loss": loss, "bpp": bpp.mean()}


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
        if model.config.space == "own":
            decoder, unet = model.vae.decoder, model.unet
            parts = [unet.texture_after, unet.texture_head, decoder.texture, decoder.texture_head]
        else:
            self.single_share = SINGLE_SHARE
        for part in parts:
            part.requires_grad_(True)

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """As ``Objective``; the loss of the critic is part of the sum."""
        model, options = self.model, self.options
        top = TEXTURE_QUALITY if model.config.space == "own" else 1.0
        chosen = float(uniform((1,), generator, x)) * top
        quality = torch.full((len(x),), chosen, device=x.device)
        with torch.no_grad():
            _, z = model.analyse(x)
            symbols = (z / model.quantiser.step(quality)).round()
            belief = model.believe(symbols, quality)
        single = float(uniform((1,), generator, x)) < self.single_share
        if single:
            y_hat = model.denoise_once(belief, quality)
        else:
            y_hat = self._sample(belief, quality, generator)
        x_hat = model.reconstruct(y_hat, (x.shape[-2], x.shape[-1]), texture=1.0)
        mse = (x_hat - x).square().mean()
        perceived = self.lpips(x_hat.clamp(0, 1), x).mean()
        loss = options.lpips_weight * perceived + TEXTURE_MSE * mse
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

    def _sample(self, belief: Belief, quality: Tensor, generator: torch.Generator) -> Tensor:
        """The prediction at a random position of a sampling chain of random length."""
        start = int(self.model.start_timestep(quality)[0])
        low, high = TEXTURE_STEPS
        steps = int(torch.randint(low, high + 1, (1,), generator=generator))
        last = int(torch.randint(0, steps, (1,), generator=generator))
        seed = int(torch.randint(0, 2**31, (1,), generator=generator))
        how = Denoising(steps, seed=seed)
        return self.model.sample_chain(belief, start, how, last + 1, gradient_at=last)


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
        """As ``Objective``; nothing here is random."""
        del generator
        x = self.model.pad(x)
        with torch.no_grad():
            y = self.teacher.encode(x)
        y_error = (self.model.vae.encode(x) - y).square().mean()
        x_hat = self.model.vae.decode(y)
        mse = (x_hat - x).square().mean()
        with torch.autocast(x.device.type, enabled=False):
            dissimilarity = 1 - ms_ssim(x_hat.float(), x).mean()
        loss = y_error + VAE_MSE * mse + dissimilarity
        if self.lpips is not None and self.options.lpips_weight:
            perceived = self.lpips(x_hat.clamp(0, 1), x).mean()
            loss = loss + self.options.lpips_weight * perceived
        return loss, {"loss": loss, "y_mse": y_error, "mse": mse, "ms_ssim": 1 - dissimilarity}


def latents(model: BkSdmCompression, batch: Tensor) -> Tensor:
    """Y of a batch: of photos [B, 3, H, W], or of cached latents, which are y already."""
    return model.encode(batch) if batch.shape[1] == 3 else batch


def quantised(z: Tensor, step: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """z with uniform noise of one step, for the rate; and rounded symbols, straight-through."""  # noqa: D403
    noisy = z + (uniform(z.shape, generator, z) - 0.5) * step
    scaled = z / step
    return noisy, scaled + (scaled.round() - scaled).detach()


def uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform noise from the CPU's generator: equal on every device."""
    return torch.rand(shape, generator=generator).to(like.device)


def _per_cell(x: Tensor, side: int) -> Tensor:
    """Means [B, h, w] of maps [B, C, H, W] over C and cells of so many pixels."""
    return F.avg_pool2d(x, side, ceil_mode=True).mean(dim=1)


def _colour_error(error: Tensor, side: int) -> Tensor:
    """Squared errors of mean colours, weighted, [B, h, w] for cells of so many pixels.

    Over 8 x 8 pixels those of two orthonormal chroma axes, over 32 x 32 those of R, G and B.
    """
    near, far = (F.avg_pool2d(error, n, ceil_mode=True) for n in (8, MEAN_SIDE))
    red, green, blue = near.unbind(dim=1)
    chroma = torch.stack([(red - blue) / math.sqrt(2), (red - 2 * green + blue) / math.sqrt(6)], 1)
    colour = CHROMA_WEIGHT * _per_cell(chroma.square(), side // 8)
    mean = far.square().mean(dim=1)
    spread = mean.repeat_interleave(MEAN_SIDE // side, 1).repeat_interleave(MEAN_SIDE // side, 2)
    return colour + COLOUR_WEIGHT * spread[:, : colour.shape[1], : colour.shape[2]]
