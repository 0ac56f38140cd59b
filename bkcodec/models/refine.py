"""The encoder's search for the timestep and the seed with which a decoder comes closest to y."""

from __future__ import annotations

import torch
from torch import Tensor

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.diffusion import Denoising

FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 1.9)  # of the timestep that the quality says
SEEDS, SEED_STEPS = 8, 4  # seeds are compared in a chain of so many steps
WORTH = 0.002  # relative gain below which a timestep is not sent


@torch.inference_mode()
def refine(
    model: BkSdmCompression, y: Tensor, symbols: Tensor, quality: Tensor, effort: int
) -> tuple[int | None, int]:
    """Choose what the file tells the decoder's U-Net.

    Args:
        model: with the U-Net that is to be used for decoding.
        y: standardised latent [1, latent, h, w].
        symbols: of the same picture [1, M, ., .].
        quality: [1], 0..1.
        effort: 1 searches the timestep of a single step, 2 also the seed of several steps.

    Returns:
        Timestep (None = the bundle's) and seed (0 = none sent).
    """
    belief = model.believe(symbols, quality)

    def error(how: Denoising) -> float:
        return float((model.denoise(belief, quality, how) - y).square().mean())

    start = int(model.start_timestep(quality)[0])
    last = min(model.timesteps, model.config.train_timesteps) - 1  # what any decoder accepts
    candidates = {start, *(min(round(start * f), last) for f in FACTORS)}
    errors = {t: error(Denoising(timestep=t)) for t in sorted(candidates)}
    best = min(errors, key=errors.__getitem__)
    timestep = best if errors[best] < (1 - WORTH) * errors[start] else None
    if effort < 2:
        return timestep, 0
    seeds = {
        s: error(Denoising(SEED_STEPS, seed=s, timestep=timestep)) for s in range(SEEDS)
    }  # fmt: skip
    return timestep, min(seeds, key=seeds.__getitem__)
