"""Training in Stable Diffusion's latent space: cached latents, and the objective on them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bkcodec.errors import InputError
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.latent import FACTOR
from bkcodec.models.sd import LATENT_STRIDE, SdVae
from bkcodec.train.context import ContextNetwork
from bkcodec.train.data import Crops, Photos
from bkcodec.train.losses import DenoisingLoss, Stats, spread_evenly, uniform
from bkcodec.train.options import TrainOptions

log = logging.getLogger(__name__)

REDUCTIONS = (1.3, 2.0)  # of the second, mirrored copy of each photo
MIN_SIDE = 256  # pixels of that copy
REPORT_PHOTOS = 100
COSINE_WEIGHT = 0.1
SCALE_WEIGHT = 0.01
DIFFUSION_WEIGHT = 0.05
JITTER = 0.2  # of the timestep of the single step, so that an encoder may choose it


class Latents(Crops):
    """y of the training photos, encoded once and kept in a file: as they are, and reduced.

    Args:
        photos: training photos.
        vae: the pretrained encoder.
        path: of the file; made where it is not there.
        precision: "bf16" encodes in mixed precision.

    Raises:
        InputError: the file is damaged or was made of other photos or by another VAE.
    """

    def __init__(self, photos: Photos, vae: SdVae, path: Path, precision: str = "no") -> None:
        self.n_skipped, self.n_photos = photos.n_skipped, len(photos)
        mark = {"vae": _digest(vae), "photos": str(len(photos))}
        if not path.exists():
            _encode_all(photos, vae, path, mark, precision == "bf16")
        try:
            with safe_open(path, "pt") as file:
                if dict(file.metadata() or {}) != mark:
                    raise InputError(f"{path}: made of other photos or by another VAE")
                self.planes = [file.get_tensor(key) for key in sorted(file.keys())]
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        areas = np.array([plane[0].numel() for plane in self.planes], np.float64)
        self._edges = np.cumsum(areas) / areas.sum()

    def batch(self, seed: Sequence[int], size: int, side: int) -> Tensor:
        """Crops of one step: y [size, 4, n, n], float32, n = side / 8 in whole cells of z."""
        rng, cells = np.random.default_rng(seed), side // LATENT_STRIDE // FACTOR * FACTOR
        return torch.stack([self._crop(rng, cells) for _ in range(size)]).float()

    def _crop(self, rng: np.random.Generator, cells: int) -> Tensor:
        plane = self.planes[
            min(int(np.searchsorted(self._edges, rng.random())), len(self.planes) - 1)
        ]
        top, left = (int(rng.integers(max(1, n - cells + 1))) for n in plane.shape[1:])
        return plane[:, top : top + cells, left : left + cells]

    def __len__(self) -> int:
        return self.n_photos


class LatentObjective(nn.Module):
    """rate + lambda * distortion of y, the denoising loss and the scale's likelihood.

    The distortion is the squared error of the mean and of the single step's y_hat, half each, and
    a little of one minus the cosine between y_hat and y. The Gaussian likelihood alone cannot be
    traded against rate: with a learned scale it falls with log D just as rate grows, so that one
    lambda would stand for every rate. It trains the scale only.
    """

    def __init__(
        self, model: BkSdmCompression, prior: ContextNetwork, options: TrainOptions
    ) -> None:
        super().__init__()
        self.model, self.prior, self.options = model, prior, options
        model.vae.requires_grad_(False)
        self.denoising = DenoisingLoss(model)

    def forward(self, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Stats]:
        """Y [B, 4, h, w] -> the loss (a scalar) and figures to report."""
        model = self.model
        quality = spread_evenly(len(y), generator).to(y.device)
        z = model.h_a(y)
        step = model.quantiser.step(quality)
        noisy = z + (uniform(z.shape, generator, y) - 0.5) * step
        scaled = z / step
        symbols = scaled + (scaled.round() - scaled).detach()
        with torch.autocast(y.device.type, enabled=False):
            bits = self.prior.bits(noisy.float(), symbols.float(), step, quality)
        bpp = bits / (z[0, 0].numel() * model.stride**2)

        belief = model.believe(symbols, quality)
        jitter = 1 + JITTER * (2 * uniform((len(y),), generator, y) - 1)
        start = (model.start_timestep(quality) * jitter).round()
        y_hat = model.denoise_once(belief, quality, start)
        errors = [(part - y).square().mean(dim=(1, 2, 3)) for part in (belief.mean, y_hat)]
        cosine = F.cosine_similarity(y_hat, y, dim=1).mean(dim=(1, 2))
        distortion = (errors[0] + errors[1]) / 2 + COSINE_WEIGHT * (1 - cosine)
        lam = self.options.lambda_at(quality)
        # Divided by sqrt(lambda), all qualities pull about equally hard.
        cost = ((bpp + lam * distortion) / lam.sqrt()).mean()

        error = (y - belief.mean).detach()
        scale = belief.log_scale
        likelihood = (0.5 * (error * torch.exp(-scale)).square() + scale).mean()
        denoising = self.denoising(y, belief, generator)
        loss = cost + SCALE_WEIGHT * likelihood + DIFFUSION_WEIGHT * denoising
        return loss, {
            "loss": cost, "bpp": bpp.mean(), "mean_mse": errors[0].mean(), "mse": errors[1].mean(),
            "cosine": cosine.mean(), "scale_nll": likelihood, "denoising": denoising,
        }  # fmt: skip


@torch.inference_mode()
def _encode_all(photos: Photos, vae: SdVae, path: Path, mark: dict[str, str], half: bool) -> None:
    planes: dict[str, Tensor] = {}
    for index, image in enumerate(photos.images):
        x = image[None].float() / 255
        planes[f"{index:06d}.0"] = _encode(vae, x, half)
        reduction = np.random.default_rng([7, index]).uniform(*REDUCTIONS)
        reduction = min(float(reduction), min(x.shape[-2:]) / MIN_SIDE)
        if reduction > 1:
            size = [round(n / reduction) for n in x.shape[-2:]]
            reduced = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
            planes[f"{index:06d}.1"] = _encode(vae, reduced.clamp(0, 1).flip(3), half)
        if index % REPORT_PHOTOS == 0:
            log.info("latents of %d of %d photos", index, len(photos))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file(planes, temporary, mark)
    temporary.replace(path)


def _encode(vae: SdVae, x: Tensor, half: bool) -> Tensor:
    height, width = (n // LATENT_STRIDE * LATENT_STRIDE for n in x.shape[-2:])
    x = x[..., :height, :width].contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        return vae.encode(x)[0].half().cpu().contiguous()


def _digest(vae: SdVae) -> str:
    """Which VAE: SHA-256 over its configuration and the sums of its tensors."""
    sums = {k: float(v.double().sum()) for k, v in sorted(vae.state_dict().items())}
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()
