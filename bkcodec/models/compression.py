"""The whole codec as one module: BkSdmCompression, in CompressAI's vocabulary."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.config import LEVELS
from bkcodec.context import ContextPrior
from bkcodec.entropy import SymbolCoder, Tables
from bkcodec.models.blocks import QualityEmbedding
from bkcodec.models.diffusion import BETA_SCHEDULES, denoise, make_scheduler
from bkcodec.models.hyperprior import HYPER_DEPTH, HyperDecoder, HyperEncoder, Quantiser
from bkcodec.models.unet import DenoisingUNet
from bkcodec.models.vae import TEXTURE_DEPTH, Vae

MAX_DEPTH = 64  # of a row of residual blocks


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the custom networks and constants of the quality ladder.

    Attributes:
        N: width of the custom VAE at 1/8 resolution (twice that at 1/16).
        M: channels of z, and of the custom VAE's latent y.
        encoder_depths, decoder_depths: residual blocks of the custom VAE at 1/8 and at 1/16.
        anchors: rows of the per-quality tables.
        coarsest, finest: initial quantisation steps at quality 0 and 1, in units of
            orthonormal DCT coefficients of an image in -1..1.
        t_coarsest, t_finest: timesteps at which the denoiser starts at quality 0 and 1.
        schedule, train_timesteps: the noise schedule, a key of ``diffusion.BETA_SCHEDULES``.
    """

    N: int = 128
    M: int = 224
    encoder_depths: tuple[int, int] = (3, 4)
    decoder_depths: tuple[int, int] = (4, 4)
    anchors: int = 10
    coarsest: float = 1.28
    finest: float = 0.052
    t_coarsest: int = 600
    t_finest: int = 60
    schedule: str = "scaled_linear"
    train_timesteps: int = 1000

    def __post_init__(self) -> None:
        sizes = (self.N, self.M, self.anchors, *self.encoder_depths, *self.decoder_depths)
        timesteps = (self.t_coarsest, self.t_finest)
        if not all(isinstance(n, int) and 1 <= n <= 4096 for n in sizes) or len(sizes) != 7:
            raise ValueError(f"sizes of networks {sizes}")
        if max(sizes[3:]) > MAX_DEPTH:
            raise ValueError(f"depths of networks {sizes[3:]}")
        if self.schedule not in BETA_SCHEDULES or not 1 <= self.train_timesteps <= 10_000:
            raise ValueError(f"schedule {self.schedule}, {self.train_timesteps} timesteps")
        if not all(0 <= t < self.train_timesteps for t in timesteps):
            raise ValueError(f"timesteps {timesteps}")

    def as_dict(self) -> dict[str, Any]:
        """For a bundle's header."""
        return asdict(self)


class BkSdmCompression(nn.Module):
    """Image x -> transmitted z -> image x_hat.

    ```
    x --VAE encoder--> y --h_a--> z --round--> z_hat --(range coder)--> z_hat
    x_hat <--VAE decoder-- y_hat <--U-Net-- (mean, log scale) <--h_s-- z_hat
    ```

    Qualities are floats in 0..1 here (the command line's 0..100 over 100). ``prior`` codes the
    symbols; without one there are no likelihoods and no strings.
    """

    prior: Tables | ContextPrior | None = None

    def __init__(self, config: ModelConfig, diffusion_steps: int = 1) -> None:
        super().__init__()
        self.config = config
        self.diffusion_steps = diffusion_steps
        latent, width = config.M, 2 * config.N
        self.vae = Vae(latent, config.N, config.encoder_depths, config.decoder_depths)
        self.h_a = HyperEncoder(latent, config.M, width)
        self.h_s = HyperDecoder(latent, config.M, width)
        self.unet = DenoisingUNet(latent, width)
        self.quantiser = Quantiser(config.M, config.anchors, config.coarsest, config.finest)
        self.embedding = QualityEmbedding(config.anchors)

    @property
    def stride(self) -> int:
        """Pixels a cell of z."""
        return self.vae.encoder.stride

    @property
    def reach(self) -> int:
        """Cells of z on each side that matter for a cell's code, or a cell's picture.

        One for each 3x3 window at 1/16, half of one for each at 1/8, in the encoder and h_a or in
        the decoder. (The U-Net sees all of a picture at once.)
        """
        c = self.config
        encoder = c.encoder_depths[1] + c.encoder_depths[0] / 2 + HYPER_DEPTH
        decoder = c.decoder_depths[1] + (c.decoder_depths[0] + TEXTURE_DEPTH) / 2
        return math.ceil(max(encoder, decoder))

    def analyse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X [B, 3, H, W] in 0..1, any size -> y, z [B, M, ceil(H/16), ceil(W/16)]."""
        y = self.vae.encoder(self.pad(x))
        return y, self.h_a(y)

    def hyper_synthesis(self, z_hat: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z_hat -> standardised mean and log scale of y, and the quality embedding."""
        embedding = self.embedding(quality)
        mean, log_scale = self.h_s(z_hat, embedding)
        return mean / self.y_std, log_scale, embedding

    def start_timestep(self, quality: Tensor) -> Tensor:
        """Quality [B] in 0..1 -> the (float, whole) timestep at which denoising starts [B]."""
        c = self.config
        return (c.t_coarsest + (c.t_finest - c.t_coarsest) * quality).round()

    def denoise_once(
        self, mean: Tensor, log_scale: Tensor, quality: Tensor, embedding: Tensor
    ) -> Tensor:
        """One step from y_t = mean: the estimate with the least distortion, standardised."""
        t = self.start_timestep(quality)
        return self.unet(mean, mean, log_scale, t, embedding)

    def reconstruct(self, y_hat: Tensor, size: tuple[int, int], texture: float = 0.0) -> Tensor:
        """Standardised y_hat -> x_hat [B, 3, *size], not clipped; ``texture``: see the decoder."""
        x_hat = self.vae.decoder(y_hat * self.y_std, texture)
        return x_hat[..., : size[0], : size[1]]

    @property
    def y_std(self) -> Tensor:
        """Spread of y, [1, latent, 1, 1]."""
        return self.vae.y_std[None, :, None, None]

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the right and bottom edges up to a multiple of the stride."""
        height, width = x.shape[-2:]
        bottom, right = -height % self.stride, -width % self.stride
        return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x

    def forward(
        self, x: Tensor, quality: Tensor | float = 0.5
    ) -> dict[str, Tensor | dict[str, Tensor]]:
        """Encode and decode without strings.

        Args:
            x: [B, 3, H, W] in 0..1, any size.
            quality: one number or [B], 0..1.

        Returns:
            x_hat [B, 3, H, W], y, z, y_hat (in units of y), the integer ``symbols`` of z, and
            ``likelihoods`` {"z": probability of each symbol} where the model has a prior.
        """
        quality = torch.as_tensor(quality, dtype=x.dtype, device=x.device).expand(x.shape[0])
        y, z = self.analyse(x)
        symbols = torch.round(z / self.quantiser.step(quality))
        likelihoods = {}
        if self.prior is not None:
            pairs = [
                self._coder_at(q).likelihoods(image)
                for image, q in zip(symbols.detach().cpu().numpy(), quality.tolist(), strict=True)
            ]
            symbols, likelihoods["z"] = (
                torch.from_numpy(np.stack(part)).to(symbols) for part in zip(*pairs, strict=True)
            )
        y_hat = self.synthesise(symbols, quality)
        x_hat = self.reconstruct(y_hat, (x.shape[-2], x.shape[-1]))
        return {"x_hat": x_hat, "y": y, "z": z, "y_hat": y_hat * self.y_std, "symbols": symbols,
                "likelihoods": likelihoods}  # fmt: skip

    def synthesise(self, symbols: Tensor, quality: Tensor) -> Tensor:
        """Integer symbols [B, M, h, w] -> standardised y_hat in one denoising step."""
        z_hat = self.quantiser.dequantise(symbols, quality)
        mean, log_scale, embedding = self.hyper_synthesis(z_hat, quality)
        return self.denoise_once(mean, log_scale, quality, embedding)

    def sample(
        self, symbols: Tensor, quality: Tensor, steps: int, scheduler: str = "ddim",
        seed: int = 0, realism: float = 1.0, timestep: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Turn symbols into a standardised y_hat, with every decoder control.

        Args:
            symbols: integers [1, M, h, w].
            quality: [1], 0..1.
            steps: 1 gives the least distortion, 2 and more give texture.
            scheduler: one of ``diffusion.SCHEDULERS``; matters from 2 steps on.
            seed: of the noise, from 2 steps on.
            realism: 0..1, weight of the denoised latent against the mean.
            timestep: where denoising starts; None = what the quality says.
        """
        z_hat = self.quantiser.dequantise(symbols, quality)
        mean, log_scale, embedding = self.hyper_synthesis(z_hat, quality)
        start = (
            self.start_timestep(quality) if timestep is None else torch.full_like(quality, timestep)
        )

        def predict(y_t: Tensor, t: Tensor) -> Tensor:
            return self.unet(y_t, mean, log_scale, t, embedding, texture=steps > 1)

        if steps == 1:
            denoised = predict(mean, start)
        else:
            c = self.config
            chain = make_scheduler(scheduler, c.schedule, c.train_timesteps, int(start.item()))
            steps = min(steps, int(start.item()) + 1)
            denoised = denoise(predict, mean, log_scale, chain, steps, seed)
        return mean + realism * (denoised - mean)

    @torch.no_grad()
    def compress(self, x: Tensor, quality: float = 0.5) -> dict[str, object]:
        """X [B, 3, H, W] in 0..1 -> {"strings": [[z string of each image]], "shape": (h, w)}."""
        coder = self._coder_at(quality)
        _, z = self.analyse(x)
        symbols = (
            torch.round(z / self.quantiser.step(torch.full((1,), quality).to(x))).cpu().numpy()
        )
        strings = [coder.encode(image)[0] for image in symbols]
        return {"strings": [strings], "shape": tuple(z.shape[-2:])}

    @torch.no_grad()
    def decompress(
        self, strings: list[list[bytes]], shape: tuple[int, int], quality: float = 0.5
    ) -> dict[str, Tensor]:
        """Inverse of ``compress``: {"x_hat": [B, 3, 16 h, 16 w] in 0..1}; the caller crops.

        Raises:
            FormatError: a string that cannot come from ``compress`` at this quality and shape.
        """
        coder = self._coder_at(quality)
        decoded = np.stack([coder.decode(string, *shape) for string in strings[0]])
        symbols = torch.from_numpy(decoded).to(self.vae.y_std.device).float()
        level = torch.full((1,), quality).to(symbols)
        images = [
            self.reconstruct(
                self.sample(one[None], level, self.diffusion_steps),
                (shape[0] * self.stride, shape[1] * self.stride),
                float(self.diffusion_steps > 1),
            )
            for one in symbols
        ]
        return {"x_hat": torch.cat(images).clamp(0, 1)}

    def _coder_at(self, quality: float) -> SymbolCoder:
        if self.prior is None:
            raise ValueError("a model without a prior cannot compress")
        return self.prior.level(round(quality * (LEVELS - 1)))
