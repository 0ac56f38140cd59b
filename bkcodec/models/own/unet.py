"""The custom denoising U-Net: predicts the clean latent (x0-prediction).

```
[y_t, mean, log scale] --> 1x1 --> blocks at 1/16 --(+)--> blocks at 1/16 --> 1x1 --(+)--> y_hat
                                        |            |                         mean -+
                                       2x2 --> blocks at 1/32 --> 1x1, shuffle 2
```

The last blocks exist twice: one branch gives the estimate of least distortion (one step from the
mean), the other denoises noisy latents and may invent texture (several steps).

All latents here are standardised (divided by y_std), so that one noise level means the same for
every channel. The output branch starts at zero: an untrained U-Net returns the mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.models.blocks import (
    EMBEDDING,
    STEM,
    Conv,
    Stack,
    as_map,
    shuffle,
    timestep_embedding,
    zero_,
)


class DenoisingUNet(nn.Module):
    """(y_t, mean, log_scale [B, latent, h, w], embedding [B, E, ., .]) -> y_hat.

    ``reach`` cells on each side of a cell matter; windows must begin at multiples of ``align``.
    """

    align = 2

    def __init__(
        self,
        latent: int,
        width: int,
        depth: int = 2,
        deep_depth: int = 3,
        texture_depth: int = 3,
        inner: float = 0.5,
    ) -> None:
        super().__init__()
        self.reach = depth + 2 * deep_depth + 1 + max(depth, texture_depth)
        self.time = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING)
        )
        self.stem = Conv(3 * latent, width, grid=STEM)
        self.before = Stack(width, depth, conditioned=True, inner=inner)
        self.down = Conv(width, width, 2, stride=2)
        self.deep = Stack(width, deep_depth, conditioned=True, inner=inner)
        self.up = Conv(width, 4 * width)
        self.after = Stack(width, depth, conditioned=True, inner=inner)
        self.head = zero_(Conv(width, latent))
        self.texture_after = Stack(width, texture_depth, conditioned=True, inner=inner)
        self.texture_head = zero_(Conv(width, latent))

    def condition(self, embedding: Tensor, t: Tensor) -> Tensor:
        """What the quality says and what the timesteps [B] or [B, h, w] say, in one embedding."""
        return embedding + as_map(self.time(timestep_embedding(t)))

    def forward(
        self, y_t: Tensor, mean: Tensor, log_scale: Tensor, embedding: Tensor, texture: bool = False
    ) -> Tensor:
        """See the class; ``embedding`` is from ``condition``, ``texture`` chooses the branch."""
        height, width = y_t.shape[-2:]
        h = self.before(self.stem(torch.cat([y_t, mean, log_scale], dim=1)), embedding)
        even = F.pad(h, (0, width % 2, 0, height % 2))
        deep = shuffle(self.up(self.deep(self.down(even), embedding)), 2)
        h = h + deep[..., :height, :width]
        if texture:
            return mean + self.texture_head(self.texture_after(h, embedding))
        return mean + self.head(self.after(h, embedding))
