"""From the integers of a bundle's prior back to trainable weights."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bkcodec.models.blocks import interpolate_rows
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.exact import FRACTIONS
from bkcodec.prior.walk import GAIN_SHIFT
from bkcodec.train.prior.network import FEATURE_UNIT, HIDDEN_UNIT, MEAN_UNIT, ONE, PER_OCTAVE


@torch.no_grad()
def thaw(prior: ContextPrior, steps: Tensor, anchors: int) -> dict[str, Tensor]:
    """Weights of a ``ContextNetwork`` that ``integers`` turns into this prior again.

    Args:
        prior: of a bundle.
        steps: its quantisation steps [levels, C].
        anchors: rows of the network's per-quality biases.

    Returns:
        Its state, all but the density of what is coded first: tables were counted, not learned.
    """
    arrays = {k: torch.from_numpy(v.astype(np.float64)) for k, v in prior.arrays.items()}
    order, levels = torch.from_numpy(prior.order), len(steps)
    # Where a step is smallest, this gain has most bits.
    ratio = arrays["mean_gain"][-1] * MEAN_UNIT / (FRACTIONS << GAIN_SHIFT)
    spread = ratio.clamp_min(1e-4) * steps[-1, order]
    state = {"order": order, "spread": spread, "shared.0": torch.zeros(prior.hidden, 0, 3, 3)}
    between = interpolate_rows(torch.eye(anchors), torch.linspace(0, 1, levels)).double()
    log_ratio = torch.log2(spread / steps[:, order])

    def weights(name: str, exponent: Tensor, side: int) -> Tensor:
        rows = arrays[name].reshape(side, side, -1, len(exponent)).permute(3, 2, 0, 1)
        return rows / torch.exp2(exponent).reshape(-1, 1, 1, 1)

    for g, p in prior.networks:
        begin, end, name = prior.starts[g], prior.ends[g], f"{g}.{p}"
        out = torch.full((2 * (end - begin),), math.log2(MEAN_UNIT))
        out[end - begin :] = math.log2(PER_OCTAVE)
        added = torch.zeros(levels, len(out))
        added[:, end - begin :] = log_ratio[:, begin:end] + ONE / PER_OCTAVE
        first, second, third = (arrays[f"{name}.{i}.shift"] for i in (1, 2, 3))
        first = first + math.log2(HIDDEN_UNIT / FEATURE_UNIT)
        third = third + out - math.log2(HIDDEN_UNIT)
        if g:
            state[f"shared.{g}"] = weights(f"{g}.shared", first, 3)
        key = f"networks.{g}_{p}"
        state[f"{key}.own"] = weights(f"{name}.1.weight", first, 3)
        state[f"{key}.second"] = weights(f"{name}.2.weight", second, 1)
        state[f"{key}.third"] = weights(f"{name}.3.weight", third, 1)
        for i, k, unit in (
            (1, first, FEATURE_UNIT),
            (2, second, HIDDEN_UNIT),
            (3, third, HIDDEN_UNIT),
        ):
            rows = arrays[f"{name}.{i}.bias"] / (torch.exp2(k) * unit) - (added if i == 3 else 0)
            state[f"{key}.bias{i}"] = torch.linalg.lstsq(between, rows).solution
    return {k: v if k == "order" else v.float() for k, v in state.items()}
