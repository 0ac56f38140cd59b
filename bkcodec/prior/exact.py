"""Small networks in exact integer arithmetic, evaluated with float32 matrix products.

Weights are int8, biases int32, activations integers. All sums stay below 2^24 (checked when a
layer is loaded), where float32 is exact: products give the same integers in any order, on any
BLAS, with or without fused multiply-add, with any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bkcodec.prior.tables import Integers

EXACT = 2**24  # float32 holds all integers up to here
FEATURE_MAX, HIDDEN_MAX = 127, 2047  # largest inputs of the first layer and of the others
BAND = 1024  # cells that are worked on at once

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]
Numbers = NDArray[np.int32]
Features = NDArray[np.int8]  # all are at most FEATURE_MAX in size
Cells = tuple[Whole, Whole]  # rows and columns of cells
CellLevels = int | NDArray[np.uint8]  # one level for all cells, or that of each [n]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """floor((x @ weight + bias) / 2^shift) for integers x.

    Attributes:
        weight: float32 [inputs, outputs], integers in -127..127.
        bias: float32 [levels, outputs], integers; includes half a unit of the output.
        scale: float32 [outputs], 2^-shift.
    """

    weight: Floats
    bias: Floats
    scale: Floats

    @classmethod
    def load(cls, arrays: dict[str, Integers], name: str, largest: int, *more: Integers) -> Layer:
        """Layer ``name`` (weight, bias, shift) for inputs of at most ``largest``.

        ``more`` are further weights [inputs, outputs] whose products go into the same sums.

        Raises:
            KeyError: one of the arrays is missing.
            ValueError: they do not fit, or a sum could leave what float32 holds exactly.
        """
        weight, bias, shift = (arrays[f"{name}.{k}"] for k in ("weight", "bias", "shift"))
        if shift.min() < 1 or shift.max() > 23:
            raise ValueError(f"shifts of layer {name}")
        rounded = bias.astype(np.int64) + 2 ** (shift.astype(np.int64) - 1)
        reach = np.abs(rounded).max(axis=0)
        for part in (weight, *more):
            reach = reach + largest * np.abs(part.astype(np.int64)).sum(axis=0)
        if reach.max() >= EXACT:
            raise ValueError(f"a sum of layer {name} could reach {reach.max()}")
        scale = np.exp2(-shift.astype(np.float32))
        return cls(weight.astype(np.float32), rounded.astype(np.float32), scale)

    def finish(self, total: Floats, level: CellLevels) -> Floats:
        """From the sums of the products [n, outputs] to the integer outputs."""
        out: Floats = np.floor((total + self.bias[level]) * self.scale)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Three layers; between them, integers are clipped to 0..2047."""

    first: Layer
    second: Layer
    third: Layer

    def __call__(self, total: Floats, level: CellLevels) -> Whole:
        """Sums of the first layer's products [n, hidden] -> outputs [n, outputs]."""
        h = self.first.finish(total, level).clip(0, HIDDEN_MAX)
        h = self.second.finish(product(h, self.second.weight), level).clip(0, HIDDEN_MAX)
        return self.third.finish(product(h, self.third.weight), level).astype(np.int64)


def product(a: Floats, b: Floats) -> Floats:
    """The matrix product; which BLAS computes it does not matter."""
    result: Floats = a @ b
    return result


def bands(n: int) -> Iterator[slice]:
    """Cut n cells into bands whose intermediate results stay in the processor's caches."""
    for begin in range(0, n, BAND):
        yield slice(begin, min(begin + BAND, n))


def convolve(
    features: Features, cells: Cells, weight: Floats, totals: list[Floats], reach: int = 1
) -> None:
    """Add a 3x3 convolution at some cells to what is there.

    Args:
        features: [h + 2 * reach, w + 2 * reach, channels], with a border of zeros.
        cells: n rows and columns, in 0..h-1 and 0..w-1.
        weight: [9 * channels, outputs]: window row by row, then channels.
        totals: the outputs, [n, hidden] each, side by side; changed in place.
        reach: distance of the window's rows and columns.
    """
    if not totals:
        return
    hidden = totals[0].shape[1]
    side = 2 * reach + 1
    windows = sliding_window_view(features, (side, side), axis=(0, 1))  # type: ignore[call-overload]
    windows = windows[..., ::reach, ::reach].transpose(0, 1, 3, 4, 2)
    rows, columns = cells
    for band in bands(len(rows)):
        part = windows[rows[band], columns[band]]  # [n, 3, 3, channels]
        sums = product(part.reshape(len(part), -1).astype(np.float32), weight)
        for i, total in enumerate(totals):
            total[band] += sums[:, hidden * i : hidden * (i + 1)]
