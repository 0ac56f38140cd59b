"""From what the decoder knows to y_hat: in one step, or in several with diffusers' schedulers.

A ``Denoiser`` is a plain object around the networks of a model: ours, or a pretrained U-Net.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bkcodec.models.blocks import at_resolution
from bkcodec.models.config import BETA_SCHEDULES
from bkcodec.models.sd.parts import SdUNet, placed
from bkcodec.models.windows import by_windows
from bkcodec.options import position_to_level

if TYPE_CHECKING:
    from bkcodec.models.compression import BkSdmCompression

CORRELATION_UNIT = 1000  # correlations are stored in thousandths


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


class Belief(NamedTuple):
    """What the decoder knows about y from z_hat, all standardised.

    ``correction`` is added to what a pretrained U-Net makes of it; without one it is None.
    """

    mean: Tensor  # [B, latent, h, w]
    log_scale: Tensor  # [B, latent, h, w]
    embedding: Tensor  # [B, EMBEDDING, ., .], of the position; cell by cell with a level map
    correction: Tensor | None


class Denoiser(ABC):
    """Makes y_hat of a belief.

    Attributes:
        timesteps: of the noise schedule.
    """

    timesteps: int

    @property
    @abstractmethod
    def betas(self) -> NDArray[np.float32]:
        """The noise schedule [timesteps]."""

    @abstractmethod
    def start(self, position: Tensor) -> Tensor:
        """Positions -> the (float, whole) timesteps at which denoising starts, likewise."""

    def usual_realism(self, position: float) -> float:
        """Weight of the denoised latent against the mean, where nobody says it, at 0..1."""
        del position
        return 1.0

    @abstractmethod
    def once(
        self, belief: Belief, position: Tensor, t: Tensor | None = None, tile: int = 0
    ) -> Tensor:
        """One step from the mean: the estimate with the least distortion, standardised.

        ``t``: the timestep [B] or [B, h, w]; None = what the position says. ``tile``: as in
        ``Denoising``.
        """

    @abstractmethod
    def predict(self, y_t: Tensor, t: Tensor, belief: Belief, tile: int = 0) -> Tensor:
        """x0-prediction for a noisy latent, in a chain of several steps."""

    @abstractmethod
    def on(self, device: torch.device) -> AbstractContextManager[None]:
        """Has the networks on a device while they work."""

    def run(self, belief: Belief, position: Tensor, how: Denoising) -> Tensor:
        """A belief -> standardised y_hat, with every decoder control.

        Args:
            belief: of one picture.
            position: [1] or [1, h, w], 0..1.
            how: steps, scheduler, seed, realism, timestep.
        """
        start = self.start(position)
        if how.timestep is not None:
            start = torch.full_like(start, min(how.timestep, self.timesteps - 1))
        with self.on(position.device):
            if how.steps == 1:
                denoised = self.once(belief, position, start, how.tile)
            else:
                denoised = self.chain(belief, start, how)
        return belief.mean + how.realism * (denoised - belief.mean)

    def chain(
        self,
        belief: Belief,
        start: Tensor,
        how: Denoising,
        last: int | None = None,
        gradient_at: int | None = None,
    ) -> Tensor:
        """The last prediction of a chain of two steps or more.

        It begins at the mean of the timesteps ``start`` [B] or [B, h, w]. ``last`` ends it early
        (counted from 1). With ``gradient_at`` (counted from 0) only that step's prediction gets a
        gradient, else all do.
        """
        first = int(start.mean().round())
        scheduler = make_scheduler(how.scheduler, self.betas, first)
        index = 0

        def predict(y_t: Tensor, t: Tensor) -> Tensor:
            nonlocal index
            has_gradient = torch.is_grad_enabled() and gradient_at in (None, index)
            index += 1
            with torch.set_grad_enabled(has_gradient):
                return self.predict(y_t, t, belief, how.tile)

        steps = min(how.steps, first + 1)
        return denoise(predict, belief.mean, belief.log_scale, scheduler, steps, how.seed, last)


class OwnDenoiser(Denoiser):
    """Our U-Net, on its own noise schedule."""

    def __init__(self, model: BkSdmCompression) -> None:
        self.unet, self.config = model.unet, model.config
        self.space, self.vae = model.space, model.vae
        self.timesteps = model.config.train_timesteps

    @property
    def betas(self) -> NDArray[np.float32]:
        """See ``Denoiser``."""
        return beta_schedule(self.config.schedule, self.config.train_timesteps)

    def start(self, position: Tensor) -> Tensor:
        """Linear in the position."""
        c = self.config
        return (c.t_coarsest + (c.t_finest - c.t_coarsest) * position).round()

    def usual_realism(self, position: float) -> float:
        """See ``Space``."""
        return self.space.usual_realism(position)

    def once(
        self, belief: Belief, position: Tensor, t: Tensor | None = None, tile: int = 0
    ) -> Tensor:
        """See ``Denoiser``."""
        t = self.start(position) if t is None else t
        return self._apply(belief.mean, t, belief, tile, texture=False)

    def predict(self, y_t: Tensor, t: Tensor, belief: Belief, tile: int = 0) -> Tensor:
        """See ``Denoiser``."""
        return self._apply(y_t, t, belief, tile, texture=True)

    def chain(
        self,
        belief: Belief,
        start: Tensor,
        how: Denoising,
        last: int | None = None,
        gradient_at: int | None = None,
    ) -> Tensor:
        """See ``Denoiser``; channels that say colour are those of the single step."""
        y_hat = super().chain(belief, start, how, last, gradient_at)
        is_colour = self.space.is_colour(self.vae)
        if is_colour is None:
            return y_hat
        with torch.no_grad():
            single = self._apply(belief.mean, start, belief, how.tile, texture=False)
        return torch.where(is_colour[:, None, None], single, y_hat)

    def on(self, device: torch.device) -> AbstractContextManager[None]:
        """It is where the model is."""
        del device
        return nullcontext()

    def _apply(self, y_t: Tensor, t: Tensor, belief: Belief, tile: int, texture: bool) -> Tensor:
        mean, log_scale, embedding, _ = belief
        embedding = at_resolution(self.unet.condition(embedding, t), y_t)
        (y_hat,) = by_windows(
            lambda *maps: (self.unet(*maps, texture),),
            (y_t, mean, log_scale, embedding),
            tile,
            self.unet.reach,
            self.unet.align,
        )
        return y_hat


class BorrowedDenoiser(Denoiser):
    """A pretrained U-Net: one timestep for the whole picture, that of the mean position.

    Where it starts follows from ``correlation``, how well the mean knows y at each level.
    """

    def __init__(self, unet: SdUNet, correlation: Tensor) -> None:
        self.unet, self.correlation = unet, correlation
        self.timesteps = len(unet.betas)

    @property
    def betas(self) -> NDArray[np.float32]:
        """See ``Denoiser``."""
        return self.unet.betas

    def start(self, position: Tensor) -> Tensor:
        """See the class."""
        means = position.reshape(len(position), -1).mean(dim=1)
        levels = [position_to_level(mean) for mean in means.tolist()]
        rho = self.correlation[levels].float() / CORRELATION_UNIT
        return torch.tensor([float(self.unet.start_timestep(r)) for r in rho.tolist()]).to(position)

    def once(
        self, belief: Belief, position: Tensor, t: Tensor | None = None, tile: int = 0
    ) -> Tensor:
        """See ``Denoiser``."""
        t = self.start(position) if t is None else t
        return self.predict(self.unet.from_mean(belief.mean, int(t[0])), t, belief, tile)

    def predict(self, y_t: Tensor, t: Tensor, belief: Belief, tile: int = 0) -> Tensor:
        """See ``Denoiser``; it sees the whole picture at once."""
        del tile
        y_hat: Tensor = self.unet(y_t, t)
        return y_hat if belief.correction is None else y_hat + belief.correction

    def on(self, device: torch.device) -> AbstractContextManager[None]:
        """On a small GPU it comes for its work only."""
        return placed(self.unet, device)


Predictor = Callable[[Tensor, Tensor], Tensor]  # (y_t, t [B]) -> x0-prediction


def philox_noise(shape: tuple[int, ...], seed: int, stream: int, device: torch.device) -> Tensor:
    """Standard normal noise from NumPy's Philox, generated on the CPU: equal on every device."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)).to(device)


@lru_cache
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
        "num_train_timesteps": start + 1,
        "trained_betas": betas[: start + 1],
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
    }
    if name == "ddim":
        return DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **common)
    if name == "dpm++":
        return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **common)
    if name == "euler":
        return EulerDiscreteScheduler(**common)
    if name != "lcm":
        raise ValueError(f"scheduler {name}")
    return LCMScheduler(clip_sample=False, original_inference_steps=start + 1, **common)


def denoise(
    predict: Predictor,
    mean: Tensor,
    log_scale: Tensor,
    scheduler: Any,
    steps: int,
    seed: int,
    stop: int | None = None,
) -> Tensor:
    """Sample y_hat in several steps from what the hyper-decoder knows.

    The mean already carries an error of the size exp(log_scale); noise fills that up to the
    homogeneous level of the first timestep, then the scheduler walks down (deterministically,
    but for LCM, which renoises).

    Args:
        predict: x0-prediction of the U-Net.
        mean: [B, latent, h, w], standardised.
        log_scale: [B, latent, h, w], of the mean's error.
        scheduler: from ``make_scheduler``.
        steps: at most as many as the chain has timesteps.
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
