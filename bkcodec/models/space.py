"""How the two latent spaces differ: their networks, and what these can do.

In our own space y is the latent of our VAE at 1/16 and z has y's cells. In that of Stable Diffusion
1.x y has four channels at 1/8, z is at 1/32, and pretrained parts may stand in for ours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bkcodec.engine.sampling import colour_channels
from bkcodec.models.config import ModelConfig
from bkcodec.models.own.hyperprior import HYPER_DEPTH, HyperDecoder, HyperEncoder
from bkcodec.models.own.unet import DenoisingUNet
from bkcodec.models.own.vae import TEXTURE_DEPTH, Vae
from bkcodec.models.sd.hyperprior import FACTOR, LATENT, LatentHyperDecoder, LatentHyperEncoder
from bkcodec.models.sd.parts import SdVae, custom_autoencoder
from bkcodec.models.sd.unet import LatentUNet
from bkcodec.tiling import tile_cells

if TYPE_CHECKING:
    from bkcodec.models.compression import BkSdmCompression


# In Stable Diffusion's space, by position; looked at, not measured: docs/bk-sdm.md.
REALISM_POSITIONS, REALISM = (0.35, 0.7), (0.5, 1.0)


class Networks(NamedTuple):
    """The networks of a model, and what y looks like."""

    vae: Any
    h_a: nn.Module
    h_s: nn.Module
    unet: Any
    factor: int  # cells of y along a cell of z
    latent: int  # channels of y


class Space(ABC):
    """A latent space: which networks it has, and what they can do.

    Attributes:
        name: in a bundle's header.
        takes_backbone: whether pretrained parts may stand in. Threads then take turns, and how
            much memory a picture needs is not known.
        is_local: whether one step of our U-Net sees near cells only, so that each tile can go from
            symbols to pixels on its own.
    """

    name: str
    takes_backbone: bool
    is_local: bool

    @abstractmethod
    def networks(self, config: ModelConfig, vae: SdVae | None) -> Networks:
        """Untrained networks, around a pretrained VAE where one is given."""

    @abstractmethod
    def reach(self, model: BkSdmCompression) -> int | None:
        """Cells of z on each side that matter for a cell's code, or a cell's picture.

        None where everything matters: the VAE then makes its own tiles.
        """

    def latent_reach(self, model: BkSdmCompression) -> int:
        """Cells of z on each side that matter for a cell of y_hat in one step, if it is local."""
        raise NotImplementedError

    def usual_realism(self, position: float) -> float:
        """Weight of our U-Net's latent against the mean, where nobody says it, at 0..1."""
        del position
        return 1.0

    def is_colour(self, vae: Any) -> Tensor | None:
        """Whether each channel of y says colour [latent]; None where no channel is that alone."""
        del vae
        return None

    def tiles(
        self, model: BkSdmCompression, tile: int | None, width: int, height: int
    ) -> tuple[int, int]:
        """Side of our tiles and their overlap, in cells of z; (0, 0) where a VAE makes its own."""
        side, reach = tile_cells(tile, width, height, model.stride), self.reach(model)
        if reach is not None:
            return side, reach
        model.vae.use_tiles(side * model.stride)
        return 0, 0


class OwnSpace(Space):
    """Our own latent space."""

    name, takes_backbone, is_local = "own", False, True

    def networks(self, config: ModelConfig, vae: SdVae | None) -> Networks:
        """See ``Space``; a pretrained VAE does not fit (ValueError)."""
        if vae is not None:
            raise ValueError("pretrained parts need the latent space of Stable Diffusion")
        latent, width, inner = config.M, 2 * config.N, config.inner
        return Networks(
            Vae(latent, config.N, config.encoder_depths, config.decoder_depths, inner),
            HyperEncoder(latent, config.M, width, inner),
            HyperDecoder(latent, config.M, width, inner),
            DenoisingUNet(latent, width, inner=inner),
            1,
            latent,
        )

    def reach(self, model: BkSdmCompression) -> int:
        """One for each 3x3 window at 1/16, half of one for each at 1/8, of encoder or decoder.

        y_hat depends on more, see ``latent_reach``.
        """
        (fine_a, coarse_a), (fine_s, coarse_s) = (
            model.config.encoder_depths,
            model.config.decoder_depths,
        )
        encoder = coarse_a + fine_a / 2 + HYPER_DEPTH
        return math.ceil(max(encoder, coarse_s + (fine_s + TEXTURE_DEPTH) / 2))

    def is_colour(self, vae: Vae) -> Tensor:
        """See ``Space`` and ``sampling.colour_channels``."""
        weight = vae.decoder.linear.weight.detach()
        return torch.from_numpy(colour_channels(weight.flatten(1).cpu().numpy())).to(weight.device)

    def latent_reach(self, model: BkSdmCompression) -> int:
        """See ``Space``."""
        return HYPER_DEPTH + int(model.unet.reach)


class SdSpace(Space):
    """The latent space of Stable Diffusion 1.x."""

    name, takes_backbone, is_local = "sd", True, False

    def networks(self, config: ModelConfig, vae: SdVae | None) -> Networks:
        """See ``Space``."""
        return Networks(
            SdVae(custom_autoencoder()) if vae is None else vae,
            LatentHyperEncoder(config.M, config.N, config.encoder_depths),
            LatentHyperDecoder(config.M, config.N, config.decoder_depths),
            LatentUNet(config.N),
            FACTOR,
            LATENT,
        )

    def usual_realism(self, position: float) -> float:
        """See ``Space``: all of it makes dimples in smooth areas at low quality."""
        return float(np.interp(position, REALISM_POSITIONS, REALISM))

    def reach(self, model: BkSdmCompression) -> int | None:
        """That of the VAE's cells, four to a cell of z, and of h_a's blocks."""
        if model.vae.reach is None:
            return None
        encoder, decoder = (cells / FACTOR for cells in model.vae.reach)
        fine, coarse = model.config.encoder_depths
        return math.ceil(max(encoder + fine / 2 + coarse, decoder))


SPACES: dict[str, Space] = {space.name: space for space in (OwnSpace(), SdSpace())}
