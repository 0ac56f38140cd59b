"""Training photos: decoded once, kept as uint8, cropped at random.

What a step draws depends on (seed, step) alone, so a resumed run sees the same crops.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bkcodec.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
MAX_REDUCTION = 2.0  # a crop covers up to twice its side in the original, then is reduced


class Photos:
    """The readable photos of a folder whose short side is at least ``min_side`` pixels."""

    def __init__(self, folder: Path, min_side: int) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(_decode, paths))
        self.images = [a for a in decoded if a is not None and min(a.shape[:2]) >= min_side]
        self.n_skipped = len(paths) - len(self.images)
        if self.n_skipped:
            log.warning("%d of %d files skipped: unreadable or small", self.n_skipped, len(paths))
        if not self.images:
            raise InputError(f"{folder}: no readable photo with a short side >= {min_side} px")

    def crop(self, rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
        """One random crop [side, side, 3] uint8, half of them reduced, half mirrored."""
        image = self.images[rng.integers(len(self.images))]
        height, width = image.shape[:2]
        reduction = rng.uniform(1, MAX_REDUCTION) if rng.random() < 0.5 else 1.0
        source = min(int(side * reduction), height, width)
        top, left = rng.integers(height - source + 1), rng.integers(width - source + 1)
        crop = image[top : top + source, left : left + source]
        if source != side:
            crop = np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS))
        return crop[:, ::-1] if rng.random() < 0.5 else crop

    def batch(self, seed: int, step: int, size: int, side: int) -> Tensor:
        """The batch of one step: [size, 3, side, side] float32 in 0..1, channels last."""
        rng = np.random.default_rng([seed, step])
        crops = np.stack([self.crop(rng, side) for _ in range(size)])
        x = torch.from_numpy(crops).permute(0, 3, 1, 2)
        return x.float().div_(255).contiguous(memory_format=torch.channels_last)

    def batches(self, seed: int, first_step: int, size: int, side: int) -> Iterator[Tensor]:
        """Batches from ``first_step`` on, prepared one ahead in a thread."""
        with ThreadPoolExecutor(1) as pool:
            step = first_step
            ahead = pool.submit(self.batch, seed, step, size, side)
            while True:
                step += 1
                ready, ahead = ahead, pool.submit(self.batch, seed, step, size, side)
                yield ready.result()


def _decode(path: Path) -> NDArray[np.uint8] | None:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        log.warning("%s skipped: %s", path, error)
        return None
