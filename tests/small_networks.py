"""A small model on the grids of integers, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bkcodec.bundle import save_bundle
from bkcodec.engine.floats import float_state
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig
from bkcodec.prior.build import build_tables, laplace_cumulative
from bkcodec.train.grids import measure_grids
from bkcodec.train.integers import integer_arrays

HEADER = {
    "name": "integers",
    "licence": "MIT",
    "stride": 16,
    "parts": {"vae": "custom", "hyperprior": "custom", "unet": "custom"},
}


SMALL = ModelConfig(N=16, M=32, encoder_depths=(1, 2), decoder_depths=(2, 1))


def model_on_grids(lake: Image.Image, config: ModelConfig = SMALL) -> BkSdmCompression:
    """Untrained, but no branch of it is zero."""
    torch.manual_seed(0)
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


def integer_bundle(lake: Image.Image, path: Path) -> Path:
    """Save a bundle with the integers of such a model."""
    model = model_on_grids(lake)
    steps = model.quantiser.exact_steps()
    spread = 8 / np.arange(1, steps.shape[1] + 1, dtype=np.float32) ** 0.8
    prior = build_tables(laplace_cumulative(spread), steps, 16 * np.ones(len(spread)))
    integers = integer_arrays(model)
    stored_as_integers = float_state(integers)
    networks = {k: v.numpy() for k, v in model.own_state().items() if k not in stored_as_integers}
    header = HEADER | {"model": model.config.as_dict()}
    save_bundle(path, header, networks, prior, integers)
    return path
