"""The phases of training: what each may touch, one row each (docs/training.md says why)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """What a phase of training touches.

    Attributes:
        name: as ``--phase`` has it.
        trains_all: encoder, prior and decoder together.
        keeps_files: changes nothing that files depend on, so the prior is its bundle's.
        in_sd_space: whether it is for the latent space of Stable Diffusion too.
        on_latents: works on cached latents there.
        takes_unet: trains around a pretrained U-Net.
    """

    name: str
    trains_all: bool = False
    keeps_files: bool = False
    in_sd_space: bool = True
    on_latents: bool = False
    takes_unet: bool = False


PHASES = {
    phase.name: phase
    for phase in (
        Phase("joint", trains_all=True, on_latents=True),
        Phase("quantise", trains_all=True, in_sd_space=False),
        Phase("prior", on_latents=True),
        Phase("decoder", keeps_files=True, in_sd_space=False),
        Phase("texture", keeps_files=True),
        Phase("denoiser", keeps_files=True, on_latents=True, takes_unet=True),
        Phase("vae", keeps_files=True),
    )
}
