"""What a training run is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bkcodec.train.context import ContextConfig, group_sizes

FOREVER = float("inf")
KEEPS_FILES = ("texture", "denoiser", "vae")  # phases that change nothing that files depend on
FEW_CHANNELS = 32  # groups of more have two phases at most: they carry few bits


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything that a resumed run must share with its beginning, but for its length.

    Attributes:
        phase: "joint" trains everything for rate and distortion; "prior" the context prior alone;
            "texture" the blocks that only several denoising steps use, for looks; "denoiser" fits
            the codec to a pretrained U-Net; "vae" teaches a custom VAE the latent space of a
            pretrained one. With the last three files keep decoding.
        batch_size: crops a step and process.
        image_size: side of the square crops in pixels.
        epochs, max_steps, max_minutes: length of the run; the first limit reached ends it.
        lambda_min, lambda_max: rate-distortion trade-offs at quality 0 and 1, geometric in
            between, in bits a pixel per squared 8-bit level.
        ms_ssim_weight: share of MS-SSIM in the distortion, 0..1.
        lpips: file of the LPIPS-SQ weights, or None.
        lpips_weight, adversarial_weight: of these two losses; 0 = off.
        hidden, context_phases: width of the context prior's networks, phases of its groups (of at
            most two where a group has more than 32 channels).
        sample_steps: denoising steps of the second kind of sample pictures.
        precision: "no" (float32), "bf16" or "fp16".
        ema_decay: of the averaged weights, which are what is exported.
        save_minutes, save_steps: distance of the validations with their checkpoints.
        adapter: "none" or "lora": what the denoiser phase adds to a pretrained U-Net.
        lora_rank: of it.
        unroll_steps: denoising steps that the denoiser phase trains through.
        latents: file of the photos' cached latents ("sd" space only).
    """

    phase: str = "joint"
    batch_size: int = 4
    image_size: int = 256
    epochs: int | None = 100
    max_steps: int | None = None
    max_minutes: float | None = None
    lr: float = 1e-4
    lambda_min: float = 1.5e-4
    lambda_max: float = 0.1
    ms_ssim_weight: float = 0.7
    lpips: str | None = None
    lpips_weight: float = 0.0
    adversarial_weight: float = 0.0
    hidden: int = 48
    context_phases: int = 2
    sample_steps: int = 30
    ema_decay: float = 0.999
    seed: int = 0
    precision: str = "no"
    save_minutes: float = 5.0
    save_steps: int | None = None
    adapter: str = "lora"
    lora_rank: int = 8
    unroll_steps: int = 1
    latents: str | None = None

    def lambda_at(self, quality: Tensor) -> Tensor:
        """The rate-distortion trade-off at qualities of 0..1."""
        low, high = math.log(self.lambda_min), math.log(self.lambda_max)
        return torch.exp(low + (high - low) * quality)

    def context(self, channels: int) -> ContextConfig:
        """The context prior for z of so many channels."""
        groups = group_sizes(channels)
        most = self.context_phases
        phases = tuple(most if n <= FEW_CHANNELS else min(2, most) for n in groups)
        return ContextConfig(groups, phases, self.hidden)

    def limits(self, n_photos: int, n_processes: int) -> tuple[float, float]:
        """Steps and minutes after which the run ends."""
        steps = [float(self.max_steps)] if self.max_steps is not None else []
        if self.epochs is not None:
            steps.append(float(self.epochs * -(-n_photos // (self.batch_size * n_processes))))
        return min(steps, default=FOREVER), self.max_minutes or FOREVER
