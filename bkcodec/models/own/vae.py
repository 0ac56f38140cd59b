"""The custom VAE: x [B, 3, H, W] in 0..1 <-> y [B, C, H/16, W/16], H and W multiples of 16.

```
x --pixel_unshuffle 16--> DCT matrix ------------------------------(+)--> y
x --unshuffle 8--> 1x1 --> blocks at 1/8 --> 2x2 --> blocks at 1/16 --^

y_hat --> inverse DCT matrix --> pixel_shuffle 16 -------------------------(+)--> x_hat
y_hat --> 1x1 --> blocks at 1/16 --> 1x1, shuffle 2 --> blocks at 1/8 --> shuffle 8 --^
                                                             |--> texture blocks --^
```

The residual branches start at zero: an untrained VAE is a truncated DCT, which already codes
photos at JPEG's level. The encoder is deterministic; training adds the quantisation noise that
makes the pair a variational autoencoder on z (Balle et al. 2018, arXiv:1802.01436).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bkcodec.models.blocks import (
    PIXELS,
    STEM,
    Conv,
    Stack,
    in_full_precision,
    shuffle,
    unshuffle,
    zero_,
)
from bkcodec.models.dct import STRIDE, dct_basis


class VaeEncoder(nn.Module):
    """x [B, 3, H, W] in 0..1 -> y [B, latent, H/16, W/16] (deterministic, ``.mode()``)."""

    def __init__(
        self, latent: int, width: int, depths: tuple[int, int] = (3, 4), inner: float = 0.5
    ) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3 * STRIDE**2, latent, 1)
        self.stem = Conv(3 * 64, width, grid=PIXELS)
        self.fine = Stack(width, depths[0], inner=inner)
        self.down = Conv(width, 2 * width, 2, stride=2)
        self.coarse = Stack(2 * width, depths[1], inner=inner)
        self.head = zero_(Conv(2 * width, latent))
        with torch.no_grad():
            zero_(self.linear).weight.copy_(dct_basis(latent)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x * 2 - 1
        h = self.fine(self.stem(unshuffle(x, 8)))
        h = self.coarse(self.down(h))
        return in_full_precision(self.linear, unshuffle(x, STRIDE)) + self.head(h)


TEXTURE_DEPTH = 2  # residual blocks at 1/8 that only several denoising steps use


class VaeDecoder(nn.Module):
    """y_hat [B, latent, H/16, W/16] -> x_hat [B, 3, H, W], about 0..1, not clipped."""

    def __init__(
        self, latent: int, width: int, depths: tuple[int, int] = (4, 4), inner: float = 0.5
    ) -> None:
        super().__init__()
        self.linear = nn.Conv2d(latent, 3 * STRIDE**2, 1)
        self.stem = Conv(latent, 2 * width, grid=STEM)
        self.coarse = Stack(2 * width, depths[1], inner=inner)
        self.up = Conv(2 * width, 4 * width)
        self.fine = Stack(width, depths[0], inner=inner)
        self.head = zero_(Conv(width, 3 * 64))
        self.texture = Stack(width, TEXTURE_DEPTH, inner=inner)
        self.texture_head = zero_(Conv(width, 3 * 64))
        with torch.no_grad():
            zero_(self.linear).weight.copy_(dct_basis(latent).t()[:, :, None, None])

    def forward(self, y_hat: Tensor, texture: float = 0.0) -> Tensor:
        """See the class; ``texture`` (0..1) weighs what several denoising steps add."""
        h = self.fine(shuffle(self.up(self.coarse(self.stem(y_hat))), 2))
        head = self.head(h)
        if texture:
            head = head + texture * self.texture_head(self.texture(h))
        residual = shuffle(head, 8)
        x_hat = shuffle(in_full_precision(self.linear, y_hat), STRIDE) + residual
        return (x_hat + 1) / 2


class Vae(nn.Module):
    """Encoder and decoder of the custom VAE, and the per-channel spread of its latent."""

    y_std: Tensor
    stride = STRIDE

    def __init__(
        self,
        latent: int,
        width: int,
        encoder_depths: tuple[int, int] = (3, 4),
        decoder_depths: tuple[int, int] = (4, 4),
        inner: float = 0.5,
    ) -> None:
        super().__init__()
        self.encoder = VaeEncoder(latent, width, encoder_depths, inner)
        self.decoder = VaeDecoder(latent, width, decoder_depths, inner)
        # Standard deviation of y per channel over photos; training measures it at the start.
        self.register_buffer("y_std", torch.ones(latent))

    def encode(self, x: Tensor) -> Tensor:
        """x [B, 3, H, W] in 0..1 -> y; see ``VaeEncoder``."""
        return self.encoder(x)

    def decode(self, y_hat: Tensor, texture: float = 0.0) -> Tensor:
        """y_hat -> x_hat; see ``VaeDecoder``."""
        return self.decoder(y_hat, texture)
