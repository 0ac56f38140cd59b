"""The encoder's search for the timestep and the seed with which a decoder comes closest to y."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Denoising

FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 1.9)  # of the timestep that the position says
SEEDS, SEED_STEPS = 8, 4  # seeds are compared in a chain of so many steps
WORTH = 0.002  # relative gain below which a timestep or a seed is not sent


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One picture, and how long to look.

    Attributes:
        model: with the U-Net that is to be used for decoding.
        y: standardised latent [1, latent, h, w].
        symbols: of the same picture [1, M, ., .].
        position: [1], 0..1.
        tile: as in ``Denoising``.
        deadline: on the monotonic clock; the best that was found by then is taken.
    """

    model: BkSdmCompression
    y: Tensor
    symbols: Tensor
    position: Tensor
    tile: int = 0
    deadline: float = math.inf

    def best(self, ways: Iterable[Denoising]) -> Denoising:
        """The way of denoising that ends closest to y; the first at least is tried."""
        belief = self.model.believe(self.symbols, self.position, self.tile)
        errors: dict[Denoising, float] = {}
        for how in ways:
            y_hat = self.model.denoiser.run(belief, self.position, replace(how, tile=self.tile))
            weight = 1.0 if errors else 1 - WORTH  # the first must be beaten by that much
            errors[how] = weight * float((y_hat - self.y).square().mean())
            if time.monotonic() > self.deadline:
                break
        return min(errors, key=errors.__getitem__)


@torch.inference_mode()
def refine(search: Search, effort: int) -> tuple[int | None, int]:
    """Choose what the file tells the decoder's U-Net.

    Args:
        search: what to compare.
        effort: 1 searches the timestep of a single step, 2 also the seed of several steps.

    Returns:
        Timestep (None = the bundle's) and seed (0 = none sent).
    """
    model = search.model
    start = int(model.denoiser.start(search.position)[0])
    # What any decoder accepts.
    last = min(model.denoiser.timesteps, model.config.train_timesteps) - 1
    others = {min(round(start * f), last) for f in FACTORS} - {start}
    timestep = search.best([Denoising(), *(Denoising(timestep=t) for t in sorted(others))]).timestep
    if effort < 2:
        return timestep, 0
    seeds = [Denoising(SEED_STEPS, seed=s, timestep=timestep) for s in range(SEEDS)]
    return timestep, search.best(seeds).seed
