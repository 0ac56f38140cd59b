"""Makes a bundle's integer entropy tables from what is known about z. Used once, at export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.prior.tables import TOTAL, Tables

# A channel that is non-zero less often than this at some level is not coded there.
RARE = 1e-4
_SYMBOL_LIMIT = 4095

Reals = NDArray[np.floating[Any]]


def build_tables(cumulative: Callable[[int, Reals], Reals], steps: Reals, bounds: Reals) -> Tables:
    """Tables of all levels and channels from each channel's distribution of z.

    Args:
        cumulative: (channel, values of z, ascending) -> probability that z is below each.
        steps: [levels, C] quantisation steps.
        bounds: [C], the largest |z| that the tables must be able to say.
    """
    lengths = np.ones(steps.shape, dtype=np.uint16)
    low = np.zeros(steps.shape, dtype=np.int16)
    rows: list[NDArray[np.uint16]] = []
    for level, channel in np.ndindex(*steps.shape):
        step = float(steps[level, channel])
        reach = int(np.clip(np.rint(bounds[channel] / step), 1, _SYMBOL_LIMIT))
        inner = (np.arange(1, reach + 1) - 0.5) * step  # lower edges of symbols 1..reach
        edges = np.concatenate([-inner[::-1], inner])
        below = np.concatenate([[0.0], cumulative(channel, edges), [1.0]])
        probabilities = np.maximum(np.diff(below), 0)
        if 1 - probabilities[reach] < RARE:
            rows.append(np.zeros(1, dtype=np.uint16))
            continue
        lengths[level, channel], low[level, channel] = len(probabilities), -reach
        rows.append(integer_weights(probabilities))
    return Tables(lengths, low, np.concatenate(rows))


def build_rows(
    probabilities: Callable[[int, int], Reals], n_rows: int, n_columns: int, rare: float = RARE
) -> Tables:
    """A grid of tables for residuals.

    Args:
        probabilities: (row, column) -> probabilities of residuals -reach..reach, an odd number.
        n_rows: of the grid.
        n_columns: of the grid.
        rare: residuals that are non-zero less often than this are not coded.
    """
    lengths = np.ones((n_rows, n_columns), np.uint16)
    low = np.zeros((n_rows, n_columns), np.int16)
    rows: list[NDArray[np.uint16]] = []
    for index in np.ndindex(n_rows, n_columns):
        p = probabilities(*index)
        reach = len(p) // 2
        if 1 - p[reach] / p.sum() < rare:
            rows.append(np.zeros(1, np.uint16))
            continue
        lengths[index], low[index] = len(p), -reach
        rows.append(integer_weights(p))
    return Tables(lengths, low, np.concatenate(rows))


def integer_weights(probabilities: Reals) -> NDArray[np.uint16]:
    """Probabilities of 2 symbols or more -> integers >= 1 that sum to 2^16."""
    share = probabilities / probabilities.sum() * (TOTAL - len(probabilities))
    weights: NDArray[np.int64] = np.floor(share).astype(np.int64) + 1
    weights[np.argmax(weights)] += TOTAL - weights.sum()
    return weights.astype(np.uint16)


def laplace_cumulative(spread: Reals) -> Callable[[int, Reals], Reals]:
    """Laplace distributions of the given standard deviations [C], for an untrained model."""

    def cumulative(channel: int, z: Reals) -> Reals:
        scale = spread[channel] / np.sqrt(2)
        tail = 0.5 * np.exp(-np.abs(z) / scale)
        return np.where(z < 0, tail, 1 - tail)

    return cumulative
