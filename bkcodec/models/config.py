"""Sizes of the networks, as a bundle's header and a run's record have them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Our names of noise schedules -> diffusers' names.
BETA_SCHEDULES = {
    "linear": "linear",
    "cosine": "squaredcos_cap_v2",
    "scaled_linear": "scaled_linear",
}
MAX_DEPTH = 64  # of a row of residual blocks
SPACE_NAMES = ("own", "sd")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the custom networks and constants of the quality ladder.

    Attributes:
        N: width of the custom networks at 1/8 resolution (twice that at 1/16, in the "sd" space
            three times that at 1/32).
        M: channels of z, and in the "own" space of the custom VAE's latent y.
        encoder_depths, decoder_depths: residual blocks of the custom VAE at 1/8 and at 1/16; in
            the "sd" space of h_a and h_s at 1/16 and at 1/32.
        anchors: rows of the per-quality tables.
        coarsest, finest: initial quantisation steps at positions 0 and 1, in units of
            orthonormal DCT coefficients of an image in -1..1 (in the "sd" space: of y).
        t_coarsest, t_finest: timesteps at which the custom denoiser starts at positions 0 and 1.
        schedule, train_timesteps: its noise schedule, a key of ``BETA_SCHEDULES``.
        space: "own": y is the custom VAE's latent, at 1/16; "sd": y is the latent of Stable
            Diffusion 1.x, 4 channels at 1/8, and z is at 1/32.
        inner: width inside of a residual block, as a share of its channels ("own" space).
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
    space: str = "own"
    inner: float = 0.5

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
        if self.space not in SPACE_NAMES:
            raise ValueError(f"latent space {self.space}")
        if not 0.25 <= self.inner <= 2 or (self.space == "sd" and self.inner != 0.5):
            raise ValueError(f"inner width {self.inner}")

    def as_dict(self) -> dict[str, Any]:
        """For a bundle's header."""
        return asdict(self)


def sd_config(N: int = 96, M: int = 64, schedule: str = "scaled_linear") -> ModelConfig:  # noqa: N803
    """Sizes for the latent space of Stable Diffusion 1.x."""
    return ModelConfig(
        N=N,
        M=M,
        encoder_depths=(3, 3),
        decoder_depths=(4, 3),
        coarsest=3.0,
        finest=0.7,
        t_coarsest=600,
        t_finest=200,
        schedule=schedule,
        space="sd",
    )
