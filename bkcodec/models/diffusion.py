"""Denoising in several steps, with diffusers' schedulers and noise that is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Our names of noise schedules -> diffusers' names.
BETA_SCHEDULES = {
    "linear": "linear", "cosine": "squaredcos_cap_v2", "scaled_linear": "scaled_linear",
}  # fmt: skip
SCHEDULERS = ("ddim", "dpm++", "euler", "lcm")


@dataclass(frozen=True, slots=True)
class Denoising:
    """How y_hat is made of what the hyper-decoder knows.

    Attributes:
        steps: 1 gives the least distortion, 2 and more give texture.
        scheduler: one of SCHEDULERS; matters from 2 steps on.
        seed: of the noise, from 2 steps on.
        realism: 0..1, weight of the denoised latent against the mean.
        timestep: where denoising starts; None = what the quality says.
        tile: side in cells of y of the windows that our networks see of it; 0 = all at once.
    """

    steps: int = 1
    scheduler: str = "ddim"
    seed: int = 0
    realism: float = 1.0
    timestep: int | None = None
    tile: int = 0


Predictor = Callable[[Tensor, Tensor], Tensor]  # (y_t, t [B]) -> x0-prediction


def philox_noise(shape: tuple[int, ...], seed: int, stream: int, device: torch.device) -> Tensor:
    """Standard normal noise from NumPy's Philox, generated on the CPU: equal on every device."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)).to(device)


def beta_schedule(schedule: str, train_timesteps: int) -> NDArray[np.float32]:
    """The betas of one of our named noise schedules, [train_timesteps]."""
    from diffusers import DDPMScheduler

    full = BETA_SCHEDULES[schedule]
    betas: NDArray[np.float32] = DDPMScheduler(train_timesteps, beta_schedule=full).betas.numpy()
    return betas


def make_scheduler(name: str, betas: NDArray[np.float32], start: int) -> Any:
    """A diffusers scheduler whose chain begins at timestep ``start``.

    The noise schedule is cut after ``start``: what would come before it never happens, because
    denoising begins at the hyper-decoder's estimate, not at pure noise.
    """
    from diffusers import (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        LCMScheduler,
    )

    common = {
        "num_train_timesteps": start + 1, "trained_betas": betas[: start + 1],
        "prediction_type": "sample", "timestep_spacing": "trailing",
    }  # fmt: skip
    if name == "ddim":
        return DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **common)
    if name == "dpm++":
        return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **common)
    if name == "euler":
        return EulerDiscreteScheduler(**common)
    return LCMScheduler(clip_sample=False, original_inference_steps=start + 1, **common)


def denoise(
    predict: Predictor, mean: Tensor, log_scale: Tensor, scheduler: Any, steps: int, seed: int,
    stop: int | None = None,
) -> Tensor:  # fmt: skip
    """Sample y_hat in ``steps`` >= 2 steps from what the hyper-decoder knows.

    The mean already carries an error of the size exp(log_scale); noise fills that up to the
    homogeneous level of the first timestep, then the scheduler walks down (deterministically,
    but for LCM, which renoises).

    Args:
        predict: x0-prediction of the U-Net.
        mean: [B, latent, h, w], standardised.
        log_scale: [B, latent, h, w], of the mean's error.
        scheduler: from ``make_scheduler``.
        steps: at least 2, at most as many as the chain has timesteps.
        seed: of the Philox noise, below 2^63.
        stop: return the prediction of this step (counted from 1) instead of the last one.

    Returns:
        The last x0-prediction, [B, latent, h, w].
    """
    scheduler.set_timesteps(steps, device=mean.device)
    timesteps = scheduler.timesteps
    shape = tuple(mean.shape)
    alpha = scheduler.alphas_cumprod[int(timesteps[0])].to(mean.device)
    fill = ((1 - alpha) - alpha * torch.exp(2 * log_scale)).clamp_min(0).sqrt()
    y_t = alpha.sqrt() * mean + fill * philox_noise(shape, seed, 0, mean.device)
    is_euler = type(scheduler).__name__.startswith("Euler")
    if is_euler:
        y_t = y_t / alpha.sqrt()  # its variance-exploding form
    y_hat = mean
    for index, t in enumerate(timesteps):
        model_input = scheduler.scale_model_input(y_t, t)
        y_hat = predict(model_input, t.float().expand(shape[0]))
        if index + 1 == stop:
            break
        if type(scheduler).__name__.startswith("LCM"):
            if index + 1 < len(timesteps):
                noise = philox_noise(shape, seed, index + 1, mean.device)
                y_t = scheduler.add_noise(y_hat, noise, timesteps[index + 1].reshape(1))
        else:
            y_t = scheduler.step(y_hat, t, y_t).prev_sample
    return y_hat
