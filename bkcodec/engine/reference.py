"""The reference backend: NumPy, short and exact, and slow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bkcodec.engine.program import (
    Add,
    Concat,
    Conv,
    CropLike,
    Film,
    Op,
    PadEven,
    Program,
    Project,
    Scale,
    Shuffle,
    Unshuffle,
)

Map = NDArray[np.float64]  # whole numbers, [C, h, w]


class ReferenceNetwork:
    """Runs a program step by step in float64, which holds every number that occurs.

    Args:
        program: the network.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._last = {value: i for i, s in enumerate(program.steps) for value in s.inputs}

    def run(self, maps: Mapping[str, NDArray[np.generic]]) -> list[Map]:
        """Maps [C, h, w] by name -> the outputs."""
        values: dict[int, Map] = {
            i: maps[name].astype(np.float64) for i, name in enumerate(self.program.inputs)
        }
        kept = set(self.program.outputs)
        for i, step in enumerate(self.program.steps):
            values[step.output] = apply(step.op, [values[v] for v in step.inputs], maps)
            for value in step.inputs:
                if self._last[value] == i and value not in kept:
                    values.pop(value, None)
        return [values[value] for value in self.program.outputs]


def apply(op: Op, x: list[Map], maps: Mapping[str, NDArray[np.generic]]) -> Map:
    """One operation."""
    match op:
        case Conv():
            return _convolve(op, x[0])
        case Project():
            flat = op.weight @ x[0].reshape(len(x[0]), -1) + op.bias[:, None]
            return np.asarray(flat.reshape(-1, *x[0].shape[1:]).astype(np.float32), np.float64)
        case Scale():
            with np.errstate(over="ignore"):  # what is too large is clipped
                product = x[0].astype(np.float32) * op.factor[:, None, None]
            return np.rint(product).clip(op.low, op.high).astype(np.float64)
        case Film():
            gain, bias = (conditions_at(maps[f"{op.name}.{k}"], op.finer) for k in _FILM)
            return x[0] * gain + bias
        case Add():
            return x[0] + x[1]
        case Concat():
            return np.concatenate(x)
        case Shuffle(r):
            c, h, w = x[0].shape
            parts = x[0].reshape(c // r**2, r, r, h, w).transpose(0, 3, 1, 4, 2)
            return parts.reshape(c // r**2, h * r, w * r)
        case Unshuffle(r):
            c, h, w = x[0].shape
            parts = x[0].reshape(c, h // r, r, w // r, r).transpose(0, 2, 4, 1, 3)
            return parts.reshape(c * r**2, h // r, w // r)
        case PadEven():
            return np.pad(x[0], ((0, 0), *((0, n % 2) for n in x[0].shape[1:])))
        case CropLike():
            return x[0][:, : x[1].shape[1], : x[1].shape[2]]


_FILM = ("gain", "bias")


def conditions_at(conditions: NDArray[np.generic], finer: float) -> Map:
    """Conditions [C, h, w] of cells of z for a grid that is finer or coarser; [C, 1, 1] stays.

    The cells that share a place of a coarser grid share a block of the level map, so the first of
    them speaks for all.
    """
    c = conditions.astype(np.float64)
    if c.shape[1:] == (1, 1):
        return c
    if finer >= 1:
        return c.repeat(int(finer), axis=1).repeat(int(finer), axis=2)
    return c[:, :: round(1 / finer), :: round(1 / finer)]


def _convolve(op: Conv, x: Map) -> Map:
    outputs, inputs, k, _ = op.weight.shape
    border = k // 2 if op.stride == 1 else 0
    padded = np.pad(x, ((0, 0), (border, border), (border, border)))
    windows = sliding_window_view(padded, (k, k), axis=(1, 2))  # type: ignore[call-overload]
    windows = windows[:, :: op.stride, :: op.stride]
    height, width = windows.shape[1:3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(inputs * k * k, -1)
    sums = op.weight.reshape(outputs, -1).astype(np.float64) @ columns
    return np.asarray((sums + op.bias[:, None]).reshape(outputs, height, width))
