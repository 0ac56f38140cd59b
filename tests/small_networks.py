"""A small model on the grids of integers, for tests."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig
from bkcodec.train.grids import measure_grids


def model_on_grids(lake: Image.Image) -> BkSdmCompression:
    """Untrained, but no branch of it is zero."""
    torch.manual_seed(0)
    config = ModelConfig(N=16, M=32, encoder_depths=(1, 2), decoder_depths=(2, 1))
    model = BkSdmCompression(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("expand.weight", "head.weight", "mean.weight", "film.weight")):
            torch.nn.init.normal_(parameter, std=0.02)
    pixels = np.stack([np.asarray(lake)[t : t + 96, t : t + 128] for t in (0, 100, 300)])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        model.vae.y_std.copy_(model.encode(x).std(dim=(0, 2, 3)))
    measure_grids(model, [x], torch.Generator().manual_seed(0))
    return model.eval().requires_grad_(False)
