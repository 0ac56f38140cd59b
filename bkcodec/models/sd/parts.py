"""Stable Diffusion's parts, pretrained or custom, behind the interface of our own parts.

Both work on y: the latent as the U-Net was trained on it, that is with the VAE's scaling factor
applied, [B, 4, H/8, W/8].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LATENT_STRIDE = 8  # pixels per cell of y
CONTEXT_TOKENS = 77
TILE_OVERLAP = 0.25  # of the tiles that diffusers blends
LORA_DOWN, LORA_UP = "down", "up"  # the two factors, as bundles name them
ABAR_MIN = 1e-3  # steps noisier than this say nothing about the picture


@contextmanager
def placed(part: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a part on a device while it works; afterwards it goes back to where it was."""
    home = next(part.parameters()).device
    if home == device:
        yield
        return
    part.to(device)
    try:
        yield
    finally:
        part.to(home)


class SdVae(nn.Module):
    """A diffusers AutoencoderKL or AutoencoderTiny. Interface as ``vae.Vae``.

    AutoencoderKL is used without its sampling (``.mode()``), AutoencoderTiny has none.
    """

    y_std: Tensor
    stride = LATENT_STRIDE

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.register_buffer("y_std", torch.ones(4), persistent=False)
        config = autoencoder.config
        self.scale = float(config.scaling_factor)
        self.shift = float(getattr(config, "shift_factor", None) or 0.0)
        self.is_tiny = type(autoencoder).__name__ == "AutoencoderTiny"

    def encode(self, x: Tensor) -> Tensor:
        """x [B, 3, H, W] in 0..1, H and W multiples of 8 -> y, float32."""
        with placed(self, x.device):
            encoded = self.autoencoder.encode((x * 2 - 1).to(self._dtype))
        y = encoded.latents if self.is_tiny else encoded.latent_dist.mode()
        return (y.float() - self.shift) * self.scale

    def decode(self, y_hat: Tensor, texture: float = 0.0) -> Tensor:
        """y_hat -> x_hat [B, 3, H, W], about 0..1, not clipped; ``texture`` is for other VAEs."""
        del texture
        y_hat = (y_hat / self.scale + self.shift).to(self._dtype)
        with placed(self, y_hat.device):
            return (self.autoencoder.decode(y_hat).sample.float() + 1) / 2

    @property
    def reach(self) -> tuple[float, float] | None:
        """Cells of y on each side that matter, in the encoder and in the decoder.

        None for AutoencoderKL, which normalises over the whole picture.
        """
        if not self.is_tiny:
            return None
        c = self.autoencoder.config
        return _tiny_reach(c.num_encoder_blocks[::-1]), _tiny_reach(c.num_decoder_blocks)

    def use_tiles(self, side: int) -> None:
        """Work in tiles of so many pixels that diffusers blends into one another; 0 = in one."""
        if not side:
            self.autoencoder.disable_tiling()
            return
        self.autoencoder.enable_tiling()
        side = max(LATENT_STRIDE * 4, side // LATENT_STRIDE * LATENT_STRIDE)
        self.autoencoder.tile_sample_min_size = side
        self.autoencoder.tile_latent_min_size = side // LATENT_STRIDE
        self.autoencoder.tile_overlap_factor = TILE_OVERLAP

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.autoencoder.parameters()).dtype
        return dtype


def _tiny_reach(blocks: list[int]) -> float:
    """Of half an AutoencoderTiny, for blocks from 1/8 to full resolution: 3 windows each."""
    return sum((3 * n + 1) / 2**i for i, n in enumerate(blocks)) + 1


def custom_autoencoder() -> nn.Module:
    """An untrained AutoencoderTiny: the custom VAE of this latent space."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny()


class SdUNet(nn.Module):
    """A diffusers UNet2DConditionModel that predicts y from a noisy y.

    Args:
        unet: with 4 channels in and out.
        betas: its noise schedule [timesteps].
        prediction: "epsilon", "v_prediction" or "sample" (what the network's output means).
        context: [77, cross_attention_dim], what the U-Net is told in place of a text.
    """

    alphas_cumprod: Tensor

    def __init__(
        self, unet: nn.Module, betas: NDArray[np.float32], prediction: str, context: Tensor
    ) -> None:
        super().__init__()
        self.unet: Any = unet
        self.betas, self.prediction = betas, prediction
        self.context = nn.Parameter(context)
        alphas = torch.from_numpy(np.cumprod(1 - betas.astype(np.float64)))
        self.register_buffer("alphas_cumprod", alphas.float(), persistent=False)

    def mark(self) -> str:
        """Which U-Net this is, in float16 or float32: SHA-256 over its first layer's weights."""
        weight = self.unet.conv_in.weight.detach().half().cpu().contiguous()
        return hashlib.sha256(weight.numpy().tobytes()).hexdigest()

    @torch.no_grad()
    def adapt(self, tensors: dict[str, Tensor]) -> None:
        """Take over what a bundle has for this U-Net.

        Args:
            tensors: ``context`` [77, width], and for each layer that has a LoRA ``lora.LAYER.down``
                [rank, in] and ``lora.LAYER.up`` [out, rank], whose product is added to its weight.

        Raises:
            ValueError: made for another U-Net.
        """
        layers = {k.rsplit(".", 1)[0] for k in tensors if k != "context"}
        pairs = {f"{layer}.{which}" for layer in layers for which in (LORA_DOWN, LORA_UP)}
        if tensors.keys() - {"context"} != pairs:
            raise ValueError("an incomplete LoRA")
        for key, value in tensors.items():
            if key == "context":
                if value.shape != self.context.shape:
                    raise ValueError(f"a context of {tuple(value.shape)}, for another U-Net")
                self.context.copy_(value)
                continue
            layer, which = key.removeprefix("lora.").rsplit(".", 1)
            if which == LORA_DOWN:
                try:
                    weight: Any = self.unet.get_submodule(layer).weight
                    weight += (tensors[f"lora.{layer}.{LORA_UP}"] @ value).to(weight.dtype)
                except (AttributeError, KeyError, RuntimeError) as error:
                    raise ValueError(f"a LoRA for another U-Net ({layer})") from error

    def start_timestep(self, correlation: float) -> int:
        """argmin_t |sqrt(abar_t) - rho|: the mean, rescaled, looks like y noised up to t."""
        usable = self.alphas_cumprod >= ABAR_MIN
        distance = (self.alphas_cumprod.sqrt() - correlation).abs()
        return int(torch.where(usable, distance, math.inf).argmin())

    def from_mean(self, mean: Tensor, t: int) -> Tensor:
        """The start y_t of a single step: the mean at the spread that a noisy y would have.

        The mean of a posterior with correlation rho to y has rho times the spread of y; at the
        start timestep rho = sqrt(abar).
        """
        return mean / self.alphas_cumprod[t].sqrt()

    def forward(self, y_t: Tensor, t: Tensor) -> Tensor:
        """y_t [B, 4, h, w], t [B] (all equal) -> the clean y [B, 4, h, w]."""
        dtype = next(self.unet.parameters()).dtype
        context = self.context.to(dtype).expand(len(y_t), -1, -1)
        whole = t[:1].round().long()
        out = self.unet(y_t.to(dtype), whole, encoder_hidden_states=context).sample.float()
        alpha = self.alphas_cumprod[whole][:, None, None, None]
        if self.prediction == "epsilon":
            return (y_t - (1 - alpha).sqrt() * out) / alpha.sqrt()
        if self.prediction == "v_prediction":
            return alpha.sqrt() * y_t - (1 - alpha).sqrt() * out
        return out
