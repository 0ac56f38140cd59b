"""What a training run is asked to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bkcodec.train.prior.network import ContextConfig, group_sizes

FOREVER = float("inf")
FEW_CHANNELS = 32  # groups of more have two phases at most: they carry few bits


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything that a resumed run must share with its beginning, but for its length.

    Attributes:
        phase: "joint" trains everything for rate and distortion; "quantise" too, on the grids of
            integer networks; "prior" the context prior alone; "decoder" what makes pictures of
            symbols, for distortion; "texture" the blocks that only several denoising steps use,
            for looks; "denoiser" fits the codec to a pretrained U-Net; "vae" teaches a custom VAE
            the latent space of a pretrained one. With the last four files keep decoding.
        batch_size: crops a step and process.
        image_size: side of the square crops in pixels.
        epochs, max_steps, max_minutes: length of the run; the first limit reached ends it.
        lambda_min, lambda_max: rate-distortion trade-offs at positions 0 and 1, geometric in
            between, in bits per pixel per squared 8-bit level.
        ms_ssim_weight: share of MS-SSIM in the distortion, 0..1.
        lpips: file of the LPIPS-SQ weights, or None.
        lpips_weight, adversarial_weight: of these two losses; 0 = off.
        hidden, context_phases: width of the context prior's networks, phases of its groups: at most
            two where a group has more than 32 channels, at most four but for the first group.
        groups: channels of these groups, or None for those that ``group_sizes`` makes.
        sample_steps: denoising steps of the second kind of sample pictures.
        precision: "no" (float32), "bf16" or "fp16".
        ema_decay: of the averaged weights, which are what is exported.
        save_minutes, save_steps: distance of the validations with their checkpoints.
        adapter: "none" or "lora": what the denoiser phase adds to a pretrained U-Net.
        lora_rank: of it.
        unroll_steps: denoising steps that the denoiser phase trains through.
        latents: file of the photos' cached latents ("sd" space only).
        rendered: share of the crops that our own code draws (text, screens, diagrams).
        decay: share of the run at whose end the learning rate falls to a hundredth, along a cosine;
            before that it is constant.
        compiled: whether the networks are compiled (torch.compile).
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
    groups: Sequence[int] | None = None
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
    rendered: float = 0.0
    decay: float = 1.0
    compiled: bool = False

    def lambda_at(self, position: Tensor) -> Tensor:
        """The rate-distortion trade-off at qualities of 0..1."""
        low, high = math.log(self.lambda_min), math.log(self.lambda_max)
        return torch.exp(low + (high - low) * position)

    def context(self, channels: int) -> ContextConfig:
        """The context prior for z of so many channels."""
        groups = group_sizes(channels) if self.groups is None else tuple(self.groups)
        most = self.context_phases
        later = (min(4 if n <= FEW_CHANNELS else 2, most) for n in groups[1:])
        return ContextConfig(groups, (most, *later), self.hidden)

    def rate_at(self, progress: float) -> float:
        """The learning rate's factor after so much of the run, 0..1."""
        decayed = max(0.0, min(1.0, progress) - 1 + self.decay) / self.decay
        return 0.5 * (1 + math.cos(math.pi * decayed)) + 0.01

    def limits(self, n_photos: int, n_processes: int) -> tuple[float, float]:
        """Steps and minutes after which the run ends."""
        steps = [float(self.max_steps)] if self.max_steps is not None else []
        if self.epochs is not None:
            steps.append(float(self.epochs * -(-n_photos // (self.batch_size * n_processes))))
        return min(steps, default=FOREVER), self.max_minutes or FOREVER
