"""Training photos: decoded once, kept as uint8 in memory or on the GPU, cropped at random.

What a step draws depends on (seed, step, process) alone, so a resumed run sees the same crops.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bkcodec.errors import BkcError, InputError
from bkcodec.image.reading import read_picture
from bkcodec.train.render import render

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
MAX_REDUCTION = 2.0  # a crop covers up to twice its side in the original, then is reduced
GPU_SHARE = 0.5  # of the GPU's free memory that the photos may take

Folder = tuple[Path, float]  # and its weight in the mixture


class Crops:
    """A source of batches; what a batch holds is up to the subclass."""

    n_skipped = 0  # files that could not be used

    def batch(self, seed: Sequence[int], size: int, side: int) -> Tensor:
        """Crops of ``side`` pixels of one step, [size, C, ., .]."""
        raise NotImplementedError

    def batches(
        self, seed: int, process: int, first: int, size: int, side: int
    ) -> Iterator[Tensor]:
        """Batches from step ``first`` on, prepared one ahead in a thread."""
        with ThreadPoolExecutor(1) as pool:
            step = first
            ahead = pool.submit(self.batch, (seed, step, process), size, side)
            while True:
                step += 1
                ready = ahead
                ahead = pool.submit(self.batch, (seed, step, process), size, side)
                yield ready.result()

    def __len__(self) -> int:
        raise NotImplementedError


class Photos(Crops):
    """The readable photos of some folders whose short side is at least ``min_side`` pixels.

    Args:
        folders: one folder, or several with weights: the chance that a crop is drawn from it.
        min_side: pixels.
        rendered: share of the crops that our own code draws instead: text, screens, diagrams, flat
            colours (see ``render``).

    Raises:
        InputError: a folder without such a photo.
    """

    def __init__(
        self, folders: Path | Sequence[Folder], min_side: int, rendered: float = 0.0
    ) -> None:
        self.rendered = rendered
        parts = [(folders, 1.0)] if isinstance(folders, Path) else list(folders)
        self.images: list[Tensor] = []  # uint8 [3, H, W]
        self.n_skipped = 0
        chances = []
        for folder, weight in parts:
            images = self._read(folder, min_side)
            self.images += images
            chances += [weight / len(images)] * len(images)
        self.chances = np.array(chances)  # of each photo, to be drawn
        self._edges = np.cumsum(chances) / np.sum(chances)

    def to(self, device: torch.device) -> Photos:
        """Move the photos to a GPU, if they take at most half of its free memory."""
        if device.type == "cuda":
            size = sum(image.numel() for image in self.images)
            if size <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
                self.images = [image.to(device) for image in self.images]
            else:
                log.info("%.1f GB of photos stay in main memory", size / 1e9)
        return self

    def crop(self, rng: np.random.Generator, side: int) -> Tensor:
        """One random crop, float [3, side, side] in 0..255; half are reduced, half mirrored."""
        if self.rendered and rng.random() < self.rendered:
            drawn = torch.from_numpy(render(rng, side)).permute(2, 0, 1)
            return drawn.to(self.images[0].device).float()
        image = self.images[min(int(np.searchsorted(self._edges, rng.random())), len(self) - 1)]
        height, width = image.shape[1:]
        reduction = rng.uniform(1, MAX_REDUCTION) if rng.random() < 0.5 else 1.0
        source = min(int(side * reduction), height, width)
        top, left = rng.integers(height - source + 1), rng.integers(width - source + 1)
        crop = image[:, top : top + source, left : left + source].float()
        if source != side:
            crop = F.interpolate(
                crop[None], (side, side), mode="bicubic", antialias=True, align_corners=False
            )[0].clamp(0, 255)
        return crop.flip(2) if rng.random() < 0.5 else crop

    def batch(self, seed: Sequence[int], size: int, side: int) -> Tensor:
        """Crops of one step: [size, 3, side, side] float32 in 0..1, channels last."""
        rng = np.random.default_rng(seed)
        x = torch.stack([self.crop(rng, side) for _ in range(size)])
        return x.div_(255).contiguous(memory_format=torch.channels_last)

    def __len__(self) -> int:
        return len(self.images)

    def _read(self, folder: Path, min_side: int) -> list[Tensor]:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(_decode, paths))
        images = [a for a in decoded if a is not None and min(a.shape[1:]) >= min_side]
        if len(images) < len(paths):
            self.n_skipped += len(paths) - len(images)
            log.warning(
                "%s: %d of %d files skipped: unreadable or small",
                folder,
                len(paths) - len(images),
                len(paths),
            )
        if not images:
            raise InputError(f"{folder}: no readable photo with a short side >= {min_side} px")
        return images


def _decode(path: Path) -> Tensor | None:
    """Pixels as the encoder reads them: upright, rounded to 8 bits."""
    try:
        with path.open("rb") as file:
            pixels = read_picture(file).rgb
    except (BkcError, OSError) as error:
        log.warning("%s skipped: %s", path, error)
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1)  # stays channels-last in memory
