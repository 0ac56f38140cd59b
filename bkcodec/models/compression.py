"""The whole codec as one module: BkSdmCompression, in CompressAI's vocabulary."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.models.blocks import QualityEmbedding, adopt_exponents
from bkcodec.models.config import ModelConfig
from bkcodec.models.denoising import (
    CORRELATION_UNIT,
    Belief,
    BorrowedDenoiser,
    Denoiser,
    Denoising,
    OwnDenoiser,
)
from bkcodec.models.own.hyperprior import HYPER_DEPTH, Quantiser
from bkcodec.models.sd.parts import SdUNet, SdVae
from bkcodec.models.space import SPACES
from bkcodec.models.windows import by_windows
from bkcodec.options import LEVELS, MAX_QUALITY, position_to_level
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.tables import SymbolCoder, Tables


class CompressAiLoop(nn.Module):
    """What training loops written for CompressAI call besides; here there is nothing to do."""

    def update(
        self, scale_table: object = None, force: bool = False, update_quantiles: bool = False
    ) -> bool:
        """Whether entropy tables were made anew: no, ``prior`` has had its tables all along."""
        return False

    def aux_loss(self) -> Tensor:
        """0, a scalar that can be backpropagated: no quantiles are learned, tables are counted."""
        return torch.zeros((), device=next(self.parameters()).device, requires_grad=True)


class BkSdmCompression(CompressAiLoop):
    """Image x -> transmitted z -> image x_hat.

    ```
    x --VAE encoder--> y --h_a--> z --round--> z_hat --(range coder)--> z_hat
    x_hat <--VAE decoder-- y_hat <--U-Net-- (mean, log scale) <--h_s-- z_hat
    ```

    Positions on the ladder of levels are floats in 0..1 (the command line's quality over 100): [B],
    one for each image, or with a level map [B, h, w], one for each cell of z. ``prior`` codes the
    symbols; without one there are no likelihoods and no strings.

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
        self,
        config: ModelConfig,
        diffusion_steps: int = 1,
        vae: SdVae | None = None,
        backbone: SdUNet | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.diffusion_steps = diffusion_steps
        self.backbone = backbone
        self.has_own_vae = vae is None
        self.space = SPACES[config.space]
        networks = self.space.networks(config, vae)
        if backbone is not None and not self.space.takes_backbone:
            raise ValueError("pretrained parts need the latent space of Stable Diffusion")
        self.vae, self.h_a, self.h_s, self.unet, self.factor, self.latent = networks
        if self.space.takes_backbone:
            start = torch.linspace(0.5, 0.97, LEVELS) * CORRELATION_UNIT
            self.register_buffer("correlation", start.to(torch.int16))
        self.quantiser = Quantiser(config.M, config.anchors, config.coarsest, config.finest)
        self.embedding = QualityEmbedding(config.anchors)

    @property
    def stride(self) -> int:
        """Pixels a cell of z."""
        return int(self.vae.stride) * self.factor

    @property
    def denoiser(self) -> Denoiser:
        """What makes y_hat: the pretrained U-Net where there is one, else ours."""
        if self.backbone is None:
            return OwnDenoiser(self)
        return BorrowedDenoiser(self.backbone, self.correlation)

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
        """x [B, 3, H, W] in 0..1, any size -> y [B, latent, ., .], padded to whole cells of z."""
        y: Tensor = self.vae.encode(self.pad(x))
        return y

    def analyse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, 3, H, W] in 0..1, any size -> y, z [B, M, ceil(H / stride), ceil(W / stride)]."""
        y = self.encode(x)
        return y, self.h_a(y)

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
        self, x: Tensor, position: Tensor | float = 0.5
    ) -> dict[str, Tensor | dict[str, Tensor]]:
        """Encode and decode without strings.

        Args:
            x: [B, 3, H, W] in 0..1, any size.
            position: one number or [B], 0..1.

        Returns:
            x_hat [B, 3, H, W], y, z, y_hat (in units of y), the integer ``symbols`` of z, and
            ``likelihoods`` {"z": probability of each symbol} where the model has a prior.
        """
        position = torch.as_tensor(position, dtype=x.dtype, device=x.device).expand(x.shape[0])
        y, z = self.analyse(x)
        symbols = torch.round(z / self.quantiser.step(position))
        likelihoods = {}
        if self.prior is not None:
            pairs = [
                _coder(self.prior, q).likelihoods(image)
                for image, q in zip(symbols.detach().cpu().numpy(), position.tolist(), strict=True)
            ]
            symbols, likelihoods["z"] = (
                torch.from_numpy(np.stack(part)).to(symbols) for part in zip(*pairs, strict=True)
            )
        y_hat = torch.cat(
            [
                self.denoiser.once(self.believe(symbols[i : i + 1], q), q)
                for i, q in enumerate(position.split(1))
            ]
        )
        x_hat = self.reconstruct(y_hat, (x.shape[-2], x.shape[-1]))
        return {
            "x_hat": x_hat,
            "y": y,
            "z": z,
            "y_hat": y_hat * self.y_std,
            "symbols": symbols,
            "likelihoods": likelihoods,
        }

    def believe(self, symbols: Tensor, position: Tensor, tile: int = 0) -> Belief:
        """Integer symbols [B, M, h, w] -> what they say about y; ``tile`` as in ``Denoising``."""
        z_hat = self.quantiser.dequantise(symbols, position)
        embedding = self.embedding(position)
        if self.space.takes_backbone:
            tile = 0  # z has a sixteenth of y's cells
        mean, log_scale, *rest = by_windows(self.h_s, (z_hat, embedding), tile, HYPER_DEPTH)
        correction = rest[0] if rest and self.backbone is not None else None
        return Belief(mean / self.y_std, log_scale, embedding, correction)

    def sample(self, symbols: Tensor, position: Tensor, how: Denoising) -> Tensor:
        """Integer symbols [1, M, h, w] -> a standardised y_hat; see ``Denoiser.run``."""
        return self.denoiser.run(self.believe(symbols, position, how.tile), position, how)

    @torch.no_grad()
    def compress(self, x: Tensor, position: float = 0.5) -> dict[str, object]:
        """Code x [B, 3, H, W] in 0..1 at a position of 0..1; ``decompress(**...)`` is the inverse.

        Returns:
            {"strings": [[z string of each image]], "shape": (h, w) in cells of z, "quality": the
            position as a quality of 0..100}.
        """
        coder = _coder(self.prior, position)
        _, z = self.analyse(x)
        step = self.quantiser.exact_step(torch.full((1,), position))
        symbols = torch.round(z.cpu().float() / step).numpy()
        strings = [coder.encode(image)[0] for image in symbols]
        quality = MAX_QUALITY * position
        return {"strings": [strings], "shape": tuple(z.shape[-2:]), "quality": quality}

    @torch.no_grad()
    def decompress(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        position: float = 0.5,
        *,
        quality: float | None = None,
    ) -> dict[str, Tensor]:
        """Inverse of ``compress``: {"x_hat": [B, 3, h * stride, w * stride]}; the caller crops.

        ``quality``: as ``compress`` returned it, 0..100; it takes the place of ``position``.

        Raises:
            FormatError: a string that cannot come from ``compress`` at this quality and shape.
        """
        if quality is not None:
            position = quality / MAX_QUALITY
        coder = _coder(self.prior, position)
        decoded = np.stack([coder.decode(string, *shape) for string in strings[0]])
        symbols = torch.from_numpy(decoded).to(self.quantiser.log_step.device).float()
        level = torch.full((1,), position).to(symbols)
        realism = self.denoiser.usual_realism(position)
        how = Denoising(self.diffusion_steps, realism=realism)
        images = [
            self.reconstruct(
                self.sample(one[None], level, how),
                (shape[0] * self.stride, shape[1] * self.stride),
                float(self.diffusion_steps > 1),
            )
            for one in symbols
        ]
        return {"x_hat": torch.cat(images).clamp(0, 1)}


def _coder(prior: Tables | ContextPrior | None, position: float) -> SymbolCoder:
    if prior is None:
        raise ValueError("a model without a prior cannot compress")
    return prior.level(position_to_level(position))


# The field's name for the configuration stays importable from here.
__all__ = ["Belief", "BkSdmCompression", "ModelConfig"]
