"""What the phases of training minimise: objectives, and the losses that they share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.sd.parts import SdVae
from bkcodec.train.objectives.denoiser import DenoiserObjective
from bkcodec.train.objectives.joint import JointObjective
from bkcodec.train.objectives.latent import LatentObjective
from bkcodec.train.objectives.prior import PriorObjective
from bkcodec.train.objectives.texture import TextureObjective
from bkcodec.train.objectives.vae import VaeObjective
from bkcodec.train.options import TrainOptions
from bkcodec.train.prior.network import ContextNetwork

Maker = Callable[[BkSdmCompression, ContextNetwork, TrainOptions], nn.Module]


def _prior(model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions) -> PriorObjective:
    model.requires_grad_(False)
    return PriorObjective(model, prior, options)


# By phase, in our own latent space and in that of Stable Diffusion.
_OWN: dict[str, Maker] = {
    "joint": JointObjective,
    "quantise": JointObjective,
    "decoder": JointObjective,
    "prior": _prior,
    "texture": lambda model, _, options: TextureObjective(model, options),
}
_SD: dict[str, Maker] = {
    "joint": LatentObjective,
    "prior": _prior,
    "texture": lambda model, _, options: TextureObjective(model, options),
    "denoiser": lambda model, _, options: DenoiserObjective(model, options),
}


def make_objective(
    model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions, teacher: SdVae | None
) -> nn.Module:
    """The objective of a run's phase; it freezes what the phase leaves alone.

    ``teacher`` is the pretrained VAE that the phase "vae" learns from.
    """
    if teacher is not None:
        return VaeObjective(model, teacher, options)
    makers = _SD if model.space.takes_backbone else _OWN
    return makers[options.phase](model, prior, options)
