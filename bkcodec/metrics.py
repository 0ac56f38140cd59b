"""PSNR and MS-SSIM of 8-bit pictures, with NumPy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, from fine to coarse
_TAPS, _SIGMA, _WHITE = 11, 1.5, 255
_K1, _K2 = 0.01, 0.03
MIN_SIDE = (_TAPS - 1) * 2 ** (len(_WEIGHTS) - 1) + 1  # pixels


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
    """
    if min(one.shape[:2]) < MIN_SIDE:
        return None
    channels = zip(np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0), strict=True)
    return float(
        np.mean([_of_planes(a.astype(np.float32), b.astype(np.float32)) for a, b in channels])
    )


def _of_planes(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    product = 1.0
    for scale, weight in enumerate(_WEIGHTS):
        luminance, structure = _ssim(a, b)
        if scale == len(_WEIGHTS) - 1:
            structure *= luminance
        product *= max(0.0, float(structure.mean())) ** weight
        a, b = _halved(a), _halved(b)
    return product


def _ssim(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The luminance term, and contrast times structure, of each window."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a = _blurred(a * a) - mean_a * mean_a
    var_b = _blurred(b * b) - mean_b * mean_b
    cov = _blurred(a * b) - mean_a * mean_b
    c1, c2 = (_K1 * _WHITE) ** 2, (_K2 * _WHITE) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return luminance, (2 * cov + c2) / (var_a + var_b + c2)


def _blurred(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    offsets = np.arange(_TAPS) - _TAPS // 2
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).astype(np.float32)
    for _ in range(2):  # along one side, then along the other
        length = len(plane) - _TAPS + 1
        rows = sum(w * plane[i : i + length] for i, w in enumerate(window))
        plane = np.ascontiguousarray(np.asarray(rows).T)
    return plane


def _halved(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Averages of two by two pixels; an odd side is padded with zeros, as is usual here."""
    padded = np.pad(plane, [(n % 2, n % 2) for n in plane.shape])
    height, width = (n // 2 * 2 for n in padded.shape)
    blocks = padded[:height, :width].reshape(height // 2, 2, width // 2, 2)
    averages: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return averages
