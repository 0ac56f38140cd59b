"""Small networks in exact integer arithmetic, evaluated with float32 matrix products.

``predict`` and ``spread`` say what is computed; ``graph`` does the same in ONNX Runtime.

Weights are int8, biases int32, activations integers. All sums stay below 2^24 (checked when a
layer is loaded), where float32 is exact: products give the same integers in any order, on any
BLAS, with or without fused multiply-add, with any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bkcodec.prior.tables import Integers

EXACT = 2**24  # float32 holds all integers up to here
FEATURE_MAX, HIDDEN_MAX = 127, 2047  # largest inputs of the first layer and of the others
FRACTIONS = 16  # means are in 1/16 symbols
ZERO = 128  # unsigned bytes stand for n - 128
SMALL = 63  # largest weights that fast kernels for signed ones multiply exactly with bytes
BAND = 512  # cells that are worked on at once

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]
Numbers = NDArray[np.int32]
Features = NDArray[np.uint8]
Weights = NDArray[np.uint8] | NDArray[np.int8]
Cells = tuple[Whole, Whole]  # rows and columns of cells
Feed = dict[str, NDArray[Any]]
CellLevels = int | NDArray[np.uint8]  # one level for all cells, or that of each [n]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """floor((x @ weight + bias) / 2^shift) for integers x.

    Attributes:
        weight: float32 [inputs, outputs], integers in -127..127; or bytes, see ``as_weights``.
        bias: float32 [levels, outputs], integers; includes half a unit of the output.
        scale: float32 [outputs], 2^-shift.
    """

    weight: Floats | Weights
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

    def in_bytes(self) -> Layer:
        """The same with weights that meet features."""
        return replace(self, weight=as_weights(self.weight))

    def at(self, levels: CellLevels, columns: Whole | slice = slice(None)) -> list[NDArray[Any]]:
        """Weight, biases and scale of some outputs; biases [1, outputs], or of each cell."""
        bias = self.bias[np.atleast_1d(levels)]
        return [self.weight[:, columns], bias[:, columns], self.scale[columns]]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Three layers, the first with bytes; between them, integers are clipped to 0..2047."""

    first: Layer
    second: Layer
    third: Layer

    def feed(self, levels: CellLevels, columns: Whole) -> Feed:
        """What ``predict`` takes of the network, for some of the third layer's pairs of outputs."""
        own, bias, scale = self.first.at(levels)
        weight = own if len(own) else np.zeros((1, own.shape[1]), np.int8)
        half = self.third.weight.shape[1] // 2
        layers = {
            "first": [weight, bias, scale],
            "second": self.second.at(levels),
            "mean": self.third.at(levels, columns),
            "width": self.third.at(levels, half + columns),
        }
        kinds = "weight", "bias", "scale"
        return {
            f"{name}.{kind}": array
            for name, arrays in layers.items()
            for kind, array in zip(kinds, arrays, strict=True)
        }


def predict(feed: Feed) -> list[Numbers]:
    """From windows of features to distributions, of n cells and c channels.

    Where all cells have the same level, what depends on it may have 1 row instead of n.

    Args:
        feed: ``windows`` bytes [n, inputs]; ``total`` float32 [n, hidden], further sums of the
            first layer; weights, biases and scales as in ``Network.feed``; ``gain`` float64 [n, c],
            of means; ``limits`` float32: the largest mean, the largest index of a scale, and the
            first whose means are whole.

    Returns:
        Rounded means and indices of tables, both int32 [n, c].
    """

    def finish(name: str, total: Floats) -> Floats:
        out: Floats = np.floor((total + feed[f"{name}.bias"]) * feed[f"{name}.scale"])
        return out

    def layer(name: str, x: Floats) -> Floats:
        return finish(name, product(x, feed[f"{name}.weight"]))

    mean_max, width_max, fine = feed["limits"]
    h = finish("first", spread(feed["windows"], feed["first.weight"]) + feed["total"])
    h = layer("second", h.clip(0, HIDDEN_MAX)).clip(0, HIDDEN_MAX)
    mean = np.floor(layer("mean", h) * feed["gain"] + 0.5).clip(-mean_max, mean_max)
    width = layer("width", h).clip(0, width_max)
    rounded = np.floor(mean / FRACTIONS + 0.5)
    fraction = np.where(width < fine, mean - FRACTIONS * rounded, 0)
    table = FRACTIONS * width + fraction + FRACTIONS // 2
    return [x.astype(np.int32) for x in (rounded, table)]


def spread(windows: Features, weight: Weights) -> Floats:
    """Windows [n, inputs] -> sums of first layers [n, outputs]."""
    return product(*(x.astype(np.float32) - zero(x.dtype) for x in (windows, weight)))


def as_bytes(x: NDArray[Any]) -> Features:
    """Integers of -127..127 as unsigned bytes."""
    return (x + ZERO).astype(np.uint8)


def as_weights(x: NDArray[Any]) -> Weights:
    """Integers of -127..127 as bytes: signed ones where all are small, else unsigned ones."""
    return as_bytes(x) if np.abs(x).max(initial=0) > SMALL else x.astype(np.int8)


def zero(kind: np.dtype[Any]) -> int:
    """What stands for 0 among bytes of a kind."""
    return ZERO if kind == np.uint8 else 0


def product(a: Floats, b: Floats) -> Floats:
    """The matrix product; which BLAS computes it does not matter."""
    result: Floats = a @ b
    return result


def bands(n: int) -> Iterator[slice]:
    """Cut n cells into bands whose intermediate results stay in the processor's caches."""
    for begin in range(0, n, BAND):
        yield slice(begin, min(begin + BAND, n))


def windows(features: Features, reach: int = 1) -> Features:
    """The 3x3 window around each cell, a view [h, w, 3, 3, channels].

    Args:
        features: [h + 2 * reach, w + 2 * reach, channels], with a border of ``ZERO``.
        reach: distance of the window's rows and columns.
    """
    side = 2 * reach + 1
    views = sliding_window_view(features, (side, side), axis=(0, 1))  # type: ignore[call-overload]
    view: Features = views[..., ::reach, ::reach].transpose(0, 1, 3, 4, 2)
    return view
