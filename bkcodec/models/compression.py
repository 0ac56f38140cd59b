"""The whole codec as one module: BkSdmCompression, in CompressAI's vocabulary."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.config import LEVELS
from bkcodec.context import ContextPrior
from bkcodec.entropy import SymbolCoder, Tables
from bkcodec.models.blocks import QualityEmbedding, adopt_exponents, at_resolution
from bkcodec.models.diffusion import Denoising, beta_schedule, denoise, make_scheduler
from bkcodec.models.hyperprior import HYPER_DEPTH, HyperDecoder, HyperEncoder, Quantiser
from bkcodec.models.latent import FACTOR, LATENT, LatentHyperDecoder, LatentHyperEncoder, LatentUNet
from bkcodec.models.sd import SdUNet, SdVae, custom_autoencoder, placed
from bkcodec.models.sizes import ModelConfig
from bkcodec.models.unet import DenoisingUNet
from bkcodec.models.vae import TEXTURE_DEPTH, Vae
from bkcodec.models.windows import by_windows

CORRELATION_UNIT = 1000  # correlations are stored in thousandths


class Belief(NamedTuple):
    """What the decoder knows about y from z_hat, all standardised.

    ``correction`` is added to what a pretrained U-Net makes of it; without one it is None.
    """

    mean: Tensor  # [B, latent, h, w]
    log_scale: Tensor  # [B, latent, h, w]
    embedding: Tensor  # [B, EMBEDDING, ., .], of the quality; cell by cell with a level map
    correction: Tensor | None


class BkSdmCompression(nn.Module):
    """Image x -> transmitted z -> image x_hat.

    ```
    x --VAE encoder--> y --h_a--> z --round--> z_hat --(range coder)--> z_hat
    x_hat <--VAE decoder-- y_hat <--U-Net-- (mean, log scale) <--h_s-- z_hat
    ```

    Qualities are floats in 0..1 here (the command line's 0..100 over 100): [B], one an image, or
    with a level map [B, h, w], one a cell of z. ``prior`` codes the symbols; without one there are
    no likelihoods and no strings.

    Args:
        config: sizes of the custom networks; its ``space`` decides which they are.
        diffusion_steps: denoising steps that ``decompress`` takes.
        vae: a pretrained VAE in place of the custom one ("sd" space only).
        backbone: a pretrained U-Net that takes over from the custom one ("sd" space only).

    Raises:
        ValueError: pretrained parts for another space.
    """

    prior: Tables | ContextPrior | None = None
    correlation: Tensor

    def __init__(
        self, config: ModelConfig, diffusion_steps: int = 1, vae: SdVae | None = None,
        backbone: SdUNet | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        self.diffusion_steps = diffusion_steps
        self.backbone = backbone
        self.has_own_vae = vae is None
        self.vae: Any
        self.h_a: nn.Module
        self.h_s: nn.Module
        self.unet: Any
        depths = (config.encoder_depths, config.decoder_depths)
        if config.space == "sd":
            self.factor, self.latent = FACTOR, LATENT
            self.vae = SdVae(custom_autoencoder()) if vae is None else vae
            self.h_a = LatentHyperEncoder(config.M, config.N, depths[0])
            self.h_s = LatentHyperDecoder(config.M, config.N, depths[1])
            self.unet = LatentUNet(config.N)
            start = torch.linspace(0.5, 0.97, LEVELS) * CORRELATION_UNIT
            self.register_buffer("correlation", start.to(torch.int16))
        else:
            if vae is not None or backbone is not None:
                raise ValueError("pretrained parts need the latent space of Stable Diffusion")
            self.factor, self.latent = 1, config.M
            latent, width = config.M, 2 * config.N
            self.vae = Vae(latent, config.N, *depths, config.inner)
            self.h_a = HyperEncoder(latent, config.M, width, config.inner)
            self.h_s = HyperDecoder(latent, config.M, width, config.inner)
            self.unet = DenoisingUNet(latent, width, inner=config.inner)
        self.quantiser = Quantiser(config.M, config.anchors, config.coarsest, config.finest)
        self.embedding = QualityEmbedding(config.anchors)

    @property
    def stride(self) -> int:
        """Pixels a cell of z."""
        return int(self.vae.stride) * self.factor

    @property
    def reach(self) -> int | None:
        """Cells of z on each side that matter for a cell's code, or a cell's picture.

        In the own space one for each 3x3 window at 1/16, half of one for each at 1/8, in the
        encoder and h_a or in the decoder (y_hat depends on more, see ``latent_reach``). None
        where everything matters: the VAE then makes its own tiles.
        """
        c = self.config
        (fine_a, coarse_a), (fine_s, coarse_s) = c.encoder_depths, c.decoder_depths
        if c.space == "sd":
            if self.vae.reach is None:
                return None
            encoder, decoder = (cells / FACTOR for cells in self.vae.reach)
            return math.ceil(max(encoder + fine_a / 2 + coarse_a, decoder))
        encoder = coarse_a + fine_a / 2 + HYPER_DEPTH
        return math.ceil(max(encoder, coarse_s + (fine_s + TEXTURE_DEPTH) / 2))

    @property
    def latent_reach(self) -> int:
        """Cells of z on each side that matter for a cell of y_hat in one step, in the own space."""
        return HYPER_DEPTH + int(self.unet.reach)

    def own_state(self) -> dict[str, Tensor]:
        """The state that belongs into a bundle: all but what pretrained parts brought along."""
        borrowed = ("backbone.", *(() if self.has_own_vae else ("vae.",)))
        return {k: v for k, v in self.state_dict().items() if not k.startswith(borrowed)}

    def load_own(self, state: dict[str, Tensor]) -> None:
        """Load what ``own_state`` gave, and nothing else.

        Raises:
            RuntimeError: a tensor is missing, unknown or of another shape.
        """
        adopt_exponents(self, state)
        differing = self.own_state().keys() ^ state.keys()
        if differing:
            raise RuntimeError(f"missing or unknown tensors: {', '.join(sorted(differing)[:3])}")
        self.load_state_dict(state, strict=False)

    def encode(self, x: Tensor) -> Tensor:
        """X [B, 3, H, W] in 0..1, any size -> y [B, latent, ., .], padded to whole cells of z."""
        y: Tensor = self.vae.encode(self.pad(x))
        return y

    def analyse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X [B, 3, H, W] in 0..1, any size -> y, z [B, M, ceil(H / stride), ceil(W / stride)]."""
        y = self.encode(x)
        return y, self.h_a(y)

    def exact_encoder(self, device: torch.device) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """``analyse``, but rounding to the same symbols on every machine, for any batch.

        In the own space it runs on float64 copies of the networks (see ``bkcodec.analysis``).
        """
        if self.config.space == "sd":
            return self.analyse
        encoder, h_a = (
            copy.deepcopy(part).to(device).double() for part in (self.vae.encoder, self.h_a)
        )

        def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
            y = encoder(self.pad(x.to(device).double()))
            return y, h_a(y)

        return analyse

    def hyper_synthesis(self, z_hat: Tensor, quality: Tensor, tile: int = 0) -> Belief:
        """z_hat -> what it says about y; ``tile`` as in ``Denoising``, in the own space."""
        embedding = self.embedding(quality)
        if self.config.space == "sd":
            tile = 0  # z has a sixteenth of y's cells
        mean, log_scale, *rest = by_windows(self.h_s, (z_hat, embedding), tile, HYPER_DEPTH)
        correction = rest[0] if rest and self.backbone is not None else None
        return Belief(mean / self.y_std, log_scale, embedding, correction)

    def start_timestep(self, quality: Tensor) -> Tensor:
        """Quality in 0..1 -> the (float, whole) timestep at which denoising starts, likewise.

        A pretrained U-Net takes one for the whole picture: that of the mean quality.
        """
        c = self.config
        if self.backbone is None:
            return (c.t_coarsest + (c.t_finest - c.t_coarsest) * quality).round()
        levels = (quality.reshape(len(quality), -1).mean(dim=1) * (LEVELS - 1)).round().long()
        rho = self.correlation[levels].float() / CORRELATION_UNIT
        return torch.tensor([float(self.backbone.start_timestep(r)) for r in rho.tolist()]).to(
            quality
        )

    @property
    def timesteps(self) -> int:
        """Of the noise schedule of the U-Net in use."""
        return self.config.train_timesteps if self.backbone is None else len(self.backbone.betas)

    def denoise_once(
        self, belief: Belief, quality: Tensor, t: Tensor | None = None, tile: int = 0
    ) -> Tensor:
        """One step from the mean: the estimate with the least distortion, standardised.

        ``t``: the timestep [B] or [B, h, w]; None = what the quality says. ``tile``: as in
        ``Denoising``.
        """
        t = self.start_timestep(quality) if t is None else t
        if self.backbone is None:
            return self._own_unet(belief.mean, t, belief, tile, texture=False)
        return self._predict(self.backbone.from_mean(belief.mean, int(t[0])), t, belief)

    def _predict(self, y_t: Tensor, t: Tensor, belief: Belief, tile: int = 0) -> Tensor:
        """x0-prediction for a noisy latent, in a chain of several steps or by a backbone."""
        if self.backbone is None:
            return self._own_unet(y_t, t, belief, tile, texture=True)
        y_hat: Tensor = self.backbone(y_t, t)
        return y_hat if belief.correction is None else y_hat + belief.correction

    def _own_unet(self, y_t: Tensor, t: Tensor, belief: Belief, tile: int, texture: bool) -> Tensor:
        mean, log_scale, embedding, _ = belief
        embedding = at_resolution(self.unet.condition(embedding, t), y_t)
        (y_hat,) = by_windows(
            lambda *maps: (self.unet(*maps, texture),),
            (y_t, mean, log_scale, embedding), tile, self.unet.reach, self.unet.align,
        )  # fmt: skip
        return y_hat

    def denoise(self, belief: Belief, quality: Tensor, how: Denoising) -> Tensor:
        """What the decoder knows -> standardised y_hat, with every decoder control.

        Args:
            belief: of one picture.
            quality: [1] or [1, h, w], 0..1.
            how: steps, scheduler, seed, realism, timestep.
        """
        start = self.start_timestep(quality)
        if how.timestep is not None:
            start = torch.full_like(start, min(how.timestep, self.timesteps - 1))
        with nullcontext() if self.backbone is None else placed(self.backbone, quality.device):
            if how.steps == 1:
                denoised = self.denoise_once(belief, quality, start, how.tile)
            else:
                denoised = self.sample_chain(belief, int(start.mean().round()), how)
        return belief.mean + how.realism * (denoised - belief.mean)

    def sample_chain(
        self, belief: Belief, start: int, how: Denoising, last: int | None = None,
        gradient_at: int | None = None,
    ) -> Tensor:  # fmt: skip
        """The last prediction of a chain of two steps or more from timestep ``start``.

        ``last`` ends the chain early (counted from 1). With ``gradient_at`` (counted from 0) only
        that step's prediction gets a gradient, else all do.
        """
        backbone = self.backbone
        betas = (
            beta_schedule(self.config.schedule, self.config.train_timesteps)
            if backbone is None else backbone.betas
        )  # fmt: skip
        chain = make_scheduler(how.scheduler, betas, start)
        position = 0

        def predict(y_t: Tensor, t: Tensor) -> Tensor:
            nonlocal position
            wanted = torch.is_grad_enabled() and gradient_at in (None, position)
            position += 1
            with torch.set_grad_enabled(wanted):
                return self._predict(y_t, t, belief, how.tile)

        steps = min(how.steps, start + 1)
        return denoise(predict, belief.mean, belief.log_scale, chain, steps, how.seed, last)

    def reconstruct(self, y_hat: Tensor, size: tuple[int, int], texture: float = 0.0) -> Tensor:
        """Standardised y_hat -> x_hat [B, 3, *size], not clipped; ``texture``: see the decoder."""
        x_hat: Tensor = self.vae.decode(y_hat * self.y_std, texture)
        return x_hat[..., : size[0], : size[1]]

    @property
    def y_std(self) -> Tensor:
        """Spread of y, [1, latent, 1, 1]."""
        spread: Tensor = self.vae.y_std
        return spread[None, :, None, None].to(self.quantiser.log_step.device)

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
        y_hat = torch.cat([
            self.denoise_once(self.believe(symbols[i : i + 1], q), q)
            for i, q in enumerate(quality.split(1))
        ])  # fmt: skip
        x_hat = self.reconstruct(y_hat, (x.shape[-2], x.shape[-1]))
        return {"x_hat": x_hat, "y": y, "z": z, "y_hat": y_hat * self.y_std, "symbols": symbols,
                "likelihoods": likelihoods}  # fmt: skip

    def believe(self, symbols: Tensor, quality: Tensor, tile: int = 0) -> Belief:
        """Integer symbols [B, M, h, w] -> what they say about y; ``tile`` as in ``Denoising``."""
        return self.hyper_synthesis(self.quantiser.dequantise(symbols, quality), quality, tile)

    def sample(self, symbols: Tensor, quality: Tensor, how: Denoising) -> Tensor:
        """Integer symbols [1, M, h, w] -> a standardised y_hat; see ``denoise``."""
        return self.denoise(self.believe(symbols, quality, how.tile), quality, how)

    @torch.no_grad()
    def compress(self, x: Tensor, quality: float = 0.5) -> dict[str, object]:
        """X [B, 3, H, W] in 0..1 -> {"strings": [[z string of each image]], "shape": (h, w)}."""
        coder = self._coder_at(quality)
        _, z = self.exact_encoder(x.device)(x)
        step = self.quantiser.exact_step(torch.full((1,), quality))
        symbols = torch.round(z.cpu().float() / step).numpy()
        strings = [coder.encode(image)[0] for image in symbols]
        return {"strings": [strings], "shape": tuple(z.shape[-2:])}

    @torch.no_grad()
    def decompress(
        self, strings: list[list[bytes]], shape: tuple[int, int], quality: float = 0.5
    ) -> dict[str, Tensor]:
        """Inverse of ``compress``: {"x_hat": [B, 3, h * stride, w * stride]}; the caller crops.

        Raises:
            FormatError: a string that cannot come from ``compress`` at this quality and shape.
        """
        coder = self._coder_at(quality)
        decoded = np.stack([coder.decode(string, *shape) for string in strings[0]])
        symbols = torch.from_numpy(decoded).to(self.quantiser.log_step.device).float()
        level = torch.full((1,), quality).to(symbols)
        images = [
            self.reconstruct(
                self.sample(one[None], level, Denoising(self.diffusion_steps)),
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


# The field's name for the configuration stays importable from here.
__all__ = ["Belief", "BkSdmCompression", "ModelConfig"]
