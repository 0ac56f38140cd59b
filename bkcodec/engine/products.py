"""Products in ONNX graphs: convolutions and projections, with the scale that follows them.

Whole numbers travel as float32, which holds all that occur, as float64 in projections, and as uint8
where a convolution takes 8 bits. A convolution whose result has 8 bits too is one QLinearConv; in
the others the power of two that follows is part of the scales or of the weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bkcodec.engine.graph import EXTENSIONS, Graph
from bkcodec.engine.program import (
    SIGNED,
    UNSIGNED,
    Conv,
    Factors,
    Integers,
    Program,
    Project,
    Reals,
    Scale,
    Shuffle,
    Step,
)

BASE, MAX_DIGITS = 128, 3  # of weights of projections; more digits take longer than float64
ZERO_POINTS = {UNSIGNED: 0, SIGNED: 128}


class Products(Graph):
    """The values of a program under construction, and what multiplies them."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.names = {  # of float32 values
            i: name for i, name in enumerate(program.inputs) if name not in program.byte_inputs
        }
        self.small: dict[int, tuple[str, int]] = {  # of uint8 values, with their zero point
            i: (name, 0) for i, name in enumerate(program.inputs) if name in program.byte_inputs
        }
        self.blocks: dict[int, int] = {}  # side of those by whose places channels are sorted
        self.users: dict[int, list[Step]] = {}
        for step in program.steps:
            for value in step.inputs:
                self.users.setdefault(value, []).append(step)
        self.fused: set[int] = set()  # outputs of steps that are part of an earlier node

    def _multiply(self, op: Conv | Project, x: int, out: int) -> None:
        """A convolution or projection together with the scale that follows."""
        (after,) = self.users[out]
        assert isinstance(after.op, Scale)
        self.fused.add(after.output)
        weight: NDArray[Any] = op.weight
        bias: NDArray[Any] = op.bias
        factor = np.broadcast_to(after.op.factor, (len(weight),))
        if x in self.blocks:
            weight = weight[:, _by_places(weight.shape[1], self.blocks[x])]
        reader = self.users.get(after.output, [after])[0].op
        if isinstance(reader, Shuffle):
            self.blocks[after.output] = reader.factor
            order = _by_places(len(weight), reader.factor)
            weight, bias, factor = weight[order], bias[order], factor[order]
        scale = replace(after.op, factor=factor)
        if isinstance(op, Conv):
            self._conv(replace(op, weight=weight, bias=bias), scale, x, after.output)
        else:
            self._project(weight, bias, scale, x, after.output)

    def _conv(self, op: Conv, scale: Scale, x: int, out: int) -> None:
        is_small = x in self.small
        if is_small and (scale.low, scale.high) == UNSIGNED:
            self.small[out] = (self._small_conv(op, scale, x), 0)
            return
        is_exact = _is_power_of_two(scale.factor)
        folded = scale.factor if is_exact else np.ones_like(scale.factor)
        if is_small and op.weight.shape[2] == op.stride:
            sums = self._matrix(op, folded, x)
        else:
            sums = self._float_conv(op, folded, x)
        largest = np.abs(op.weight.astype(np.float64)).sum(axis=(1, 2, 3)) * max(op.high, -op.low)
        reach = ((largest + np.abs(op.bias)) * np.abs(scale.factor)).max()
        rest = replace(scale, factor=np.ones(1, np.float32)) if is_exact else scale
        self._finish(sums, rest, out, float(reach))

    def _small_conv(self, op: Conv, scale: Scale, x: int) -> str:
        """8 bits of a convolution of 8 bits."""
        name, zero = self.small[x]
        one = self.constant(np.float32(1))
        factor = scale.factor.astype(np.float32)
        return self.node(
            "QLinearConv", name, one, self.constant(np.uint8(zero)),
            self.constant(op.weight.astype(np.int8)), self.constant(factor),
            self.constant(np.zeros(len(factor), np.int8)), one,
            self.constant(np.uint8(0)), self.constant(op.bias.astype(np.int32)),
            domain=EXTENSIONS, channels_last=1, **self._geometry(op),
        )  # fmt: skip

    def _matrix(self, op: Conv, factor: Factors, x: int) -> str:
        """A convolution of 8 bits on single places, or on blocks of them: exact sums in float32."""
        name, zero = self.small[x]
        if op.stride > 1:
            name = self.unshuffle(name, op.stride)
        weight = op.weight.transpose(2, 3, 1, 0).reshape(-1, len(op.weight))
        return self.node(
            "MatMulIntegerToFloat", name, self.constant(weight.astype(np.int8)),
            self.constant(np.float32(1)), self.constant(factor.astype(np.float32)),
            self.constant(np.uint8(zero)), self.constant(np.zeros(len(factor), np.int8)),
            self.constant((op.bias * factor).astype(np.float32)), domain=EXTENSIONS,
        )  # fmt: skip

    def _float_conv(self, op: Conv, factor: Factors, x: int) -> str:
        weight = (op.weight * factor[:, None, None, None]).astype(np.float32)
        source, bias = self._whole(x), self.constant((op.bias * factor).astype(np.float32))
        if weight.shape[2:] == (1, 1):
            matrix = self.constant(weight[:, :, 0, 0].T)
            return self.node("Add", self.node("MatMul", source, matrix), bias)
        first = self.node("Transpose", source, perm=[0, 3, 1, 2])
        filters = self.constant(weight)
        sums = self.node("Conv", first, filters, bias, **self._geometry(op))
        return self.node("Transpose", sums, perm=[0, 2, 3, 1])

    def _project(self, weight: Reals, bias: Reals, scale: Scale, x: int, out: int) -> None:
        """A projection: in float64, or digit by digit where that is possible."""
        is_exact = _is_power_of_two(scale.factor)
        folded = scale.factor.astype(np.float64) if is_exact else np.ones(len(bias))
        digits = _digits(weight)
        if x in self.small and len(digits) <= MAX_DIGITS:
            total = self.node(
                "Add", self._by_digits(digits, folded, x), self.constant(bias * folded)
            )
        else:
            # A channel of ones for the biases costs less than to add them.
            pads = self.constant(np.array([0, 0, 0, 0, 0, 0, 0, 1]))
            padded = self.node("Pad", self._whole(x), pads, self.constant(np.float32(1)))
            matrix = np.concatenate([weight, bias[:, None]], axis=1) * folded[:, None]
            wide = self.node("Cast", padded, to=TensorProto.DOUBLE)
            total = self.node("MatMul", wide, self.constant(np.ascontiguousarray(matrix.T)))
        narrow = self.node("Cast", total, to=TensorProto.FLOAT)
        rest = replace(scale, factor=np.ones(1, np.float32)) if is_exact else scale
        self._finish(narrow, rest, out, float("inf"))

    def _by_digits(self, digits: list[Integers], factor: Reals, x: int) -> str:
        """Products of bytes with each digit of the weights, added up in float64."""
        name, zero = self.small[x]
        total = ""
        for place, digit in enumerate(digits):
            sums = self.node(
                "MatMulInteger", name, self.constant(digit.T), self.constant(np.uint8(zero))
            )
            wide = self.node("Cast", sums, to=TensorProto.DOUBLE)
            part = self.node("Mul", wide, self.constant(factor * float(BASE**place)))
            total = self.node("Add", total, part) if total else part
        return total

    def _scale(self, op: Scale, x: int, out: int) -> None:
        limits = (op.low, op.high)
        if limits in ZERO_POINTS and len(op.factor) == 1 and _is_power_of_two(op.factor):
            zero = ZERO_POINTS[limits]
            unit = self.constant(np.float32(1 / op.factor[0]))
            small = self.node("QuantizeLinear", self._whole(x), unit, self.constant(np.uint8(zero)))
            self.small[out] = (small, zero)
            return
        self._finish(self._whole(x), op, out, float("inf"))

    def _finish(self, name: str, op: Scale, out: int, reach: float) -> None:
        """Multiply, round and clip, as far as that changes anything."""
        if (op.factor != 1).any():
            name = self.node("Mul", name, self.constant(op.factor))
        name = self.node("Round", name)
        if reach > min(op.high, -op.low):
            low, high = (self.constant(np.float32(v)) for v in (op.low, op.high))
            name = self.node("Clip", name, low, high)
        self.names[out] = name

    def _geometry(self, op: Conv) -> dict[str, list[int]]:
        side = op.weight.shape[2]
        pad = side // 2 if op.stride == 1 else 0
        return {"kernel_shape": [side] * 2, "strides": [op.stride] * 2, "pads": [pad] * 4}

    def _whole(self, value: int) -> str:
        """The float32 tensor of a value."""
        if value in self.small and not self.names.get(value):
            name, zero = self.small[value]
            one = self.constant(np.float32(1))
            self.names[value] = self.node(
                "DequantizeLinear", name, one, self.constant(np.uint8(zero))
            )
        return self.names[value]


def _is_power_of_two(factor: Factors) -> bool:
    return bool((np.frexp(factor)[0] == 0.5).all())


def _digits(weight: Reals) -> list[Integers]:
    """Whole numbers -> their digits to the base BASE, -64..63, the lowest first."""
    digits: list[Integers] = []
    rest = weight.astype(np.int64)
    while rest.any() or not digits:
        digit = (rest + BASE // 2) % BASE - BASE // 2
        digits.append(digit.astype(np.int8))
        rest = (rest - digit) // BASE
    return digits


def _by_places(channels: int, r: int) -> NDArray[np.int64]:
    """Channels of blocks of r x r in the order of their places, and which ones they are."""
    return np.arange(channels).reshape(-1, r**2).T.ravel()
