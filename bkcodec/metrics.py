"""PSNR and MS-SSIM of 8-bit pictures, with NumPy alone, and SSIMULACRA2 by the package of it."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bkcodec import machine
from bkcodec.errors import extra

Pixels = NDArray[np.uint8]
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, from fine to coarse
WINDOW = 11  # pixels along a window of similarity
_SIGMA, _WHITE = 1.5, 255
_K1, _K2 = 0.01, 0.03
MIN_SIDE = (WINDOW - 1) * 2 ** (len(_WEIGHTS) - 1) + 1  # pixels
SSIMULACRA2_SIDE = 8  # pixels; the package calls everything smaller perfect
_MS_SSIM_BYTES, _SSIMULACRA2_BYTES = 45, 530  # for each pixel, measured with 1 to 9 megapixels


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of uint8 [H, W, C] in dB, over all channels; infinite if equal."""
    total = 0.0
    for a, b in zip(one, other, strict=True):
        total += float(np.square(a.astype(np.int32) - b).sum())
    return 10 * math.log10(_WHITE**2 * one.size / total) if total else math.inf


def ms_ssim(one: Pixels, other: Pixels) -> float | None:
    """Multi-scale structural similarity of uint8 [H, W, C], the mean of the channels, 0..1.

    Wang et al. 2003, with windows of 11 x 11 pixels that lie inside; None for sides below
    ``MIN_SIDE``. Negative structure counts as none.

    Raises:
        LimitError: not enough memory for it.
    """
    if min(one.shape[:2]) < MIN_SIDE:
        return None
    machine.require(_MS_SSIM_BYTES * math.prod(one.shape[:2]))
    channels = zip(np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0), strict=True)
    return float(
        np.mean([_of_planes(a.astype(np.float32), b.astype(np.float32)) for a, b in channels])
    )


def decibels(similarity: float) -> float:
    """MS-SSIM as -10 log10(1 - x): even steps of it look about even. 60 at most."""
    return -10 * math.log10(max(1e-6, 1 - similarity))


def ssimulacra2(one: Pixels, other: Pixels) -> float | None:
    """SSIMULACRA2 of uint8 [H, W, 1 or 3] in sRGB: 100 where equal, below 0 where little is left.

    None for sides below ``SSIMULACRA2_SIDE``.

    Raises:
        UnsupportedError: the package is not here.
        LimitError: not enough memory for it.
    """
    with extra("metrics", "SSIMULACRA2"):
        from ssimulacra2 import compute_ssimulacra2
    height, width = one.shape[:2]
    if min(height, width) < SSIMULACRA2_SIDE:
        return None
    machine.require(_SSIMULACRA2_BYTES * height * width)
    return float(compute_ssimulacra2(_as_file(one), _as_file(other)))


def _as_file(picture: Pixels) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(file, "PPM")
    return file


def _of_planes(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    product = 1.0
    for scale, weight in enumerate(_WEIGHTS):
        luminance, structure = similarity(a, b)
        if scale == len(_WEIGHTS) - 1:
            structure *= luminance
        product *= max(0.0, float(structure.mean())) ** weight
        a, b = halved(a), halved(b)
    return product


def similarity(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The luminance term, and contrast times structure, of each window inside of two planes."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a = _blurred(a * a) - mean_a * mean_a
    var_b = _blurred(b * b) - mean_b * mean_b
    cov = _blurred(a * b) - mean_a * mean_b
    c1, c2 = (_K1 * _WHITE) ** 2, (_K2 * _WHITE) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return luminance, (2 * cov + c2) / (var_a + var_b + c2)


def _blurred(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).astype(np.float32)
    for _ in range(2):  # along one side, then along the other
        length = len(plane) - WINDOW + 1
        rows = sum(w * plane[i : i + length] for i, w in enumerate(window))
        plane = np.ascontiguousarray(np.asarray(rows).T)
    return plane


def halved(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Averages of two by two pixels; an odd side is padded with zeros, as is usual here."""
    padded = np.pad(plane, [(n % 2, n % 2) for n in plane.shape])
    height, width = (n // 2 * 2 for n in padded.shape)
    blocks = padded[:height, :width].reshape(height // 2, 2, width // 2, 2)
    averages: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return averages
