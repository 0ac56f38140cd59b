"""Denoising in several steps, alike on every machine: DDIM in float64 between integer networks.

Every operation is one of IEEE 754's (sums, products, quotients, square roots), in a fixed order;
what is not, the exponential of the log scale, is a table of the bundle. Noise is made of whole
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float64]
Predictor = Callable[[Latents, int], Latents]  # (y_t, t) -> the clean y

TERMS, BITS = 12, 16  # of a number of noise: so many uniform ones are added
FINENESS = 64  # entries of the table of spreads for each unit of the log scale
LOWEST, HIGHEST = -6, 2  # of the log scale


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Of the noise.

    Attributes:
        alphas: products of 1 - beta [timesteps], within 0..1.
        spreads: as from ``spread_table``.

    Raises:
        ValueError: arrays that cannot be these.
    """

    alphas: Latents
    spreads: Latents

    def __post_init__(self) -> None:
        for name, array in (("alphas", self.alphas), ("spreads", self.spreads)):
            if array.dtype != np.float64 or array.ndim != 1 or not np.isfinite(array).all():
                raise ValueError(f"{name} are not real numbers")
        if not ((self.alphas > 0) & (self.alphas < 1)).all():
            raise ValueError("alphas are not within 0..1")
        if self.spreads.shape != spread_table().shape:
            raise ValueError(f"{len(self.spreads)} spreads")


def noise(shape: tuple[int, ...], seed: int) -> Latents:
    """Nearly normal noise of variance 1: the sum of twelve uniform numbers of 16 bits each.

    Three words of Philox (Salmon et al. 2011) make one of them.

    Args:
        shape: [C, ...]; a channel after the other is made.
        seed: below 2^64.
    """
    generator = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64))
    n_words = TERMS * BITS * math.prod(shape[1:]) // 64
    out = np.empty(shape)
    for plane in out:
        uniform = generator.random_raw(n_words).astype("<u8").view("<u2")
        total = uniform.reshape(-1, TERMS).sum(axis=1, dtype=np.int64)
        centred = 2 * total - TERMS * (2**BITS - 1)
        plane[:] = (centred * 2.0 ** -(BITS + 1)).reshape(plane.shape)
    return out


def spread_table() -> Latents:
    """exp(2 s) for log scales s of -6, -6 + 1/64, ..., 2."""
    count = (HIGHEST - LOWEST) * FINENESS + 1
    table: Latents = np.exp(2 * (LOWEST + np.arange(count) / FINENESS))
    return table


def colour_channels(weight: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each channel of y says colour, [M], and not brightness.

    Several steps leave those channels as one step makes them: what they add is texture, which is
    brightness, while a wrong colour covers the whole cell.

    Args:
        weight: of the VAE decoder's linear path [3 * 16 * 16, M]. Red, green and blue of a pattern
            of colour cancel out.
    """
    colours = weight.astype(np.float64).reshape(3, -1, weight.shape[1])
    greys = np.abs(colours.sum(axis=0)).sum(axis=0)
    is_colour: NDArray[np.bool_] = 2 * greys < np.abs(colours).sum(axis=(0, 1))
    return is_colour


def sample(
    predict: Predictor,
    known: tuple[Latents, Latents],
    schedule: Schedule,
    start: int,
    steps: int,
    seed: int,
) -> Latents:
    """The last prediction of a chain from timestep ``start`` (DDIM, Song et al. 2021).

    The mean already has an error of variance exp(2 log scale); noise fills that up to what the
    first timestep has.

    Args:
        predict: the U-Net.
        known: mean [C, h, w] and log scale of its error [C, h, w], LOWEST..HIGHEST.
        schedule: of the bundle.
        start: timestep.
        steps: so many predictions, but not more than there are timesteps.
        seed: of the noise, below 2^64.
    """
    alphas, count = schedule.alphas, start + 1
    steps = min(steps, count)
    timesteps = [round(count * (steps - i) / steps) - 1 for i in range(steps)]
    y_t = _begin(known, schedule, timesteps[0], seed)
    y_hat = predict(y_t, timesteps[0])
    for t, later in pairwise(timesteps):
        error = (y_t - np.sqrt(alphas[t]) * y_hat) / np.sqrt(1 - alphas[t])
        y_t = np.sqrt(alphas[later]) * y_hat + np.sqrt(1 - alphas[later]) * error
        y_hat = predict(y_t, later)
    return y_hat


def _begin(known: tuple[Latents, Latents], schedule: Schedule, t: int, seed: int) -> Latents:
    """The mean with as much noise as timestep t has."""
    (mean, log_scale), alpha = known, schedule.alphas[t]
    index = np.rint((log_scale - LOWEST) * FINENESS).astype(np.int64)
    fill = np.sqrt(np.maximum((1 - alpha) - alpha * schedule.spreads[index], 0))
    y_t: Latents = np.sqrt(alpha) * mean + fill * noise(mean.shape, seed)
    return y_t
