"""Latents of the training photos, encoded once and kept in a file."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bkcodec.errors import InputError
from bkcodec.models.sd.hyperprior import FACTOR
from bkcodec.models.sd.parts import LATENT_STRIDE, SdVae
from bkcodec.train.checkpoint import write_tensors
from bkcodec.train.clock import in_words
from bkcodec.train.data import Crops, Photos

log = logging.getLogger(__name__)

REDUCTIONS = (1.3, 2.0)  # of the second, mirrored copy of each photo
MIN_SIDE = 256  # pixels of that copy
REPORT_PHOTOS = 100


class Latents(Crops):
    """y of the training photos, encoded once and kept in a file: as they are, and reduced.

    Args:
        photos: training photos.
        vae: the pretrained encoder.
        path: of the file; made where it is not there.
        side: pixels of the crops that are wanted; reduced copies are no smaller.
        half: encode in bfloat16 (mixed precision).

    Raises:
        InputError: the file is damaged or was made of other photos or by another VAE.
    """

    def __init__(
        self, photos: Photos, vae: SdVae, path: Path, side: int, half: bool = False
    ) -> None:
        self.n_skipped, self.n_photos = photos.n_skipped, len(photos)
        mark = {"vae": _vae_digest(vae), "photos": _photos_digest(photos), "side": str(side)}
        if not path.exists():
            _encode_all(photos, vae, path, mark, half)
        try:
            with safe_open(path, "pt") as file:
                if dict(file.metadata() or {}) != mark:
                    raise InputError(f"{path}: made of other photos or by another VAE")
                keys = sorted(file.keys())
                self.planes = [file.get_tensor(key) for key in keys]
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        areas = np.array([plane[0].numel() for plane in self.planes], np.float64)
        chances = areas * photos.chances[[int(key.split(".")[0]) for key in keys]]
        self._edges = np.cumsum(chances) / chances.sum()

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


@torch.inference_mode()
def _encode_all(photos: Photos, vae: SdVae, path: Path, mark: dict[str, str], half: bool) -> None:
    planes: dict[str, Tensor] = {}
    began = time.monotonic()
    device = vae.y_std.device
    for index, image in enumerate(photos.images):
        x = image[None].to(device).float() / 255
        planes[f"{index:06d}.0"] = _encode(vae, x, half)
        reduction = np.random.default_rng([7, index]).uniform(*REDUCTIONS)
        least = max(MIN_SIDE, int(mark["side"]))
        reduction = min(float(reduction), min(x.shape[-2:]) / least)
        if reduction > 1:
            size = [round(n / reduction) for n in x.shape[-2:]]
            reduced = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
            planes[f"{index:06d}.1"] = _encode(vae, reduced.clamp(0, 1).flip(3), half)
        if index % REPORT_PHOTOS == 0:
            left = in_words((time.monotonic() - began) * (len(photos) / (index + 1) - 1))
            log.info("latents of %d of %d photos, %s left", index + 1, len(photos), left)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, planes, mark)


def _encode(vae: SdVae, x: Tensor, half: bool) -> Tensor:
    height, width = (n // LATENT_STRIDE * LATENT_STRIDE for n in x.shape[-2:])
    x = x[..., :height, :width].contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        return vae.encode(x)[0].half().cpu().contiguous()


def _vae_digest(vae: SdVae) -> str:
    """SHA-256 over its weights and the scaling of its latents."""
    digest = hashlib.sha256(f"{vae.scale} {vae.shift}".encode())
    for key, value in sorted(vae.state_dict().items()):
        digest.update(key.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _photos_digest(photos: Photos) -> str:
    """SHA-256 over all pixels."""
    digest = hashlib.sha256()
    for image in photos.images:
        digest.update(f"{tuple(image.shape)}".encode())
        digest.update(image.permute(1, 2, 0).contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
