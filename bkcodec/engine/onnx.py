"""ONNX Runtime as a backend: programs become graphs when they are loaded.

Whole numbers travel as float32, which holds all that occur, as float64 in projections, and as
uint8 where a convolution takes 8 bits. A convolution whose result has 8 bits too is one
QLinearConv; in the others the power of two that follows is part of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bkcodec.engine.program import (
    SIGNED,
    UNSIGNED,
    Add,
    Concat,
    Conv,
    CropLike,
    Film,
    Integers,
    PadEven,
    Program,
    Project,
    Reals,
    Scale,
    Shuffle,
    Step,
    Unshuffle,
)
from bkcodec.engine.reference import conditions_at

OPSET, IR_VERSION = 17, 8  # of ONNX Runtime 1.15 and later
ZERO_POINTS = {UNSIGNED: 0, SIGNED: 128}

Map = NDArray[np.float32]


class OnnxNetwork:
    """Runs a program in ONNX Runtime on the CPU.

    Args:
        program: the network.
        threads: that it may use; 0 = one for each core.
    """

    def __init__(self, program: Program, threads: int = 0) -> None:
        self.program = program
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it would keep the peak
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = GraphBuilder(program).model()
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, maps: Mapping[str, NDArray[np.generic]]) -> list[Map]:
        """Maps [C, h, w] by name -> the outputs."""
        feed = {name: maps[name] for name in self.program.inputs}
        for film in self.program.films:
            for name in (f"{film.name}.gain", f"{film.name}.bias"):
                feed[name] = conditions_at(maps[name], film.finer)
        whole = {k: np.ascontiguousarray(v, np.float32)[None] for k, v in feed.items()}
        return [out[0] for out in self._session.run(None, whole)]


class GraphBuilder:
    """Translates a program, step by step."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.names = {i: name for i, name in enumerate(program.inputs)}  # of float32 values
        self.small: dict[int, tuple[str, int]] = {}  # of uint8 values, with their zero point
        self.order: dict[int, NDArray[np.int64]] = {}  # of channels after SpaceToDepth
        self.users: dict[int, list[Step]] = {}
        for step in program.steps:
            for value in step.inputs:
                self.users.setdefault(value, []).append(step)
        self.fused: set[int] = set()  # outputs of steps that are part of an earlier node

    def model(self) -> onnx.ModelProto:
        """The whole graph."""
        for step in self.program.steps:
            if step.output not in self.fused:
                self._translate(step)
        films = [f"{film.name}.{kind}" for film in self.program.films for kind in ("gain", "bias")]
        inputs = [_info(name) for name in (*self.program.inputs, *films)]
        outputs = [_info(self._whole(value)) for value in self.program.outputs]
        graph = helper.make_graph(
            self.nodes, self.program.name, inputs, outputs, initializer=self.constants
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)

    def _translate(self, step: Step) -> None:
        x, out = step.inputs, step.output
        match step.op:
            case Conv() as op:
                self._conv(op, x[0], out)
            case Project() as op:
                self._project(op, x[0], out)
            case Scale() as op:
                self._scale(op, x[0], out)
            case Film(name):
                scaled = self._node("Mul", self._whole(x[0]), f"{name}.gain")
                self.names[out] = self._node("Add", scaled, f"{name}.bias")
            case Add():
                self.names[out] = self._node("Add", *map(self._whole, x))
            case Concat():
                self.names[out] = self._node("Concat", *map(self._whole, x), axis=1)
            case Shuffle(r):
                self.names[out] = self._node(
                    "DepthToSpace", self._whole(x[0]), blocksize=r, mode="CRD"
                )
            case Unshuffle(r):
                self.names[out] = self._node("SpaceToDepth", self._whole(x[0]), blocksize=r)
                self.order[out] = _order_after_space_to_depth(r, self.users[out])
            case PadEven():
                sides = self._sides(x[0])
                odd = self._node("Mod", sides, self._constant(np.array([2, 2])))
                none = self._constant(np.zeros(6, np.int64))
                pads = self._node("Concat", none, odd, axis=0)
                self.names[out] = self._node("Pad", self._whole(x[0]), pads)
            case CropLike():
                starts, axes = (self._constant(np.array(v)) for v in ([0, 0], [2, 3]))
                sides = self._sides(x[1])
                self.names[out] = self._node("Slice", self._whole(x[0]), starts, sides, axes)

    def _conv(self, op: Conv, x: int, out: int) -> None:
        """A convolution together with the scale that follows."""
        (after,) = self.users[out]
        assert isinstance(after.op, Scale)
        self.fused.add(after.output)
        scale, side = after.op, op.weight.shape[2]
        settings = {
            "kernel_shape": [side, side],
            "strides": [op.stride] * 2,
            "pads": [side // 2 if op.stride == 1 else 0] * 4,
        }
        factor = np.broadcast_to(scale.factor, (len(op.weight),))
        weight = _reordered(op.weight, self.order.get(x))
        if x in self.small and (scale.low, scale.high) == UNSIGNED:
            name, zero = self.small[x]
            one = self._constant(np.float32(1))
            self.names[after.output] = ""
            result = self._node(
                "QLinearConv", name, one, self._constant(np.uint8(zero)),
                self._constant(weight.astype(np.int8)), self._constant(factor.astype(np.float32)),
                self._constant(np.zeros(len(factor), np.int8)), one,
                self._constant(np.uint8(0)), self._constant(op.bias.astype(np.int32)), **settings,
            )  # fmt: skip
            self.small[after.output] = (result, 0)
            return
        exact = _is_power_of_two(factor)
        folded = factor if exact else np.ones_like(factor)
        scaled = (weight * folded[:, None, None, None]).astype(np.float32)
        bias = (op.bias * folded).astype(np.float32)
        sums = self._node(
            "Conv", self._whole(x), self._constant(scaled), self._constant(bias), **settings
        )
        largest = np.abs(weight.astype(np.float64)).sum(axis=(1, 2, 3)) * max(op.high, -op.low)
        reach = ((largest + np.abs(op.bias)) * np.abs(factor)).max()
        rest = Scale(np.ones(1) if exact else factor, scale.low, scale.high)
        self._finish(sums, rest, after.output, float(reach))

    def _project(self, op: Project, x: int, out: int) -> None:
        """A projection in float64, together with the scale that follows."""
        (after,) = self.users[out]
        assert isinstance(after.op, Scale)
        self.fused.add(after.output)
        factor = np.broadcast_to(after.op.factor, (len(op.weight),))
        weight = _reordered(op.weight, self.order.get(x)) * factor[:, None]
        source = self._whole(x)
        shape = self._node("Shape", source)
        flat = self._node("Reshape", source, self._constant(np.array([op.weight.shape[1], -1])))
        wide = self._node("Cast", flat, to=TensorProto.DOUBLE)
        product = self._node("MatMul", self._constant(weight), wide)
        total = self._node("Add", product, self._constant((op.bias * factor)[:, None]))
        rounded = self._node("Round", total)
        low, high = (self._constant(np.float64(v)) for v in (after.op.low, after.op.high))
        clipped = self._node("Clip", rounded, low, high)
        narrow = self._node("Cast", clipped, to=TensorProto.FLOAT)
        sides = self._node(
            "Slice", shape, self._constant(np.array([2])), self._constant(np.array([4]))
        )
        target = self._node("Concat", self._constant(np.array([1, len(op.weight)])), sides, axis=0)
        self.names[after.output] = self._node("Reshape", narrow, target)

    def _scale(self, op: Scale, x: int, out: int) -> None:
        limits = (op.low, op.high)
        if limits in ZERO_POINTS and len(op.factor) == 1:
            zero = ZERO_POINTS[limits]
            unit = self._constant(np.float32(1 / op.factor[0]))
            small = self._node(
                "QuantizeLinear", self._whole(x), unit, self._constant(np.uint8(zero))
            )
            self.small[out] = (small, zero)
            return
        self._finish(self._whole(x), op, out, float("inf"))

    def _finish(self, name: str, op: Scale, out: int, reach: float) -> None:
        """Multiply, round and clip, as far as that changes anything."""
        is_wide = not _is_power_of_two(op.factor)
        kind = np.float64 if is_wide else np.float32
        if is_wide:  # a product that is not exact is rounded as in float64
            name = self._node("Cast", name, to=TensorProto.DOUBLE)
        if (op.factor != 1).any():
            factor = self._constant(op.factor.astype(kind)[:, None, None])
            name = self._node("Mul", name, factor)
        name = self._node("Round", name)
        if reach > min(op.high, -op.low):
            low, high = (self._constant(kind(v)) for v in (op.low, op.high))
            name = self._node("Clip", name, low, high)
        if is_wide:
            name = self._node("Cast", name, to=TensorProto.FLOAT)
        self.names[out] = name

    def _whole(self, value: int) -> str:
        """The float32 tensor of a value."""
        if value in self.small and not self.names.get(value):
            name, zero = self.small[value]
            one = self._constant(np.float32(1))
            self.names[value] = self._node(
                "DequantizeLinear", name, one, self._constant(np.uint8(zero))
            )
        return self.names[value]

    def _sides(self, value: int) -> str:
        shape = self._node("Shape", self._whole(value))
        return self._node(
            "Slice", shape, self._constant(np.array([2])), self._constant(np.array([4]))
        )

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, array: NDArray[np.generic] | np.generic) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name


def _info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None, None])


def _is_power_of_two(factor: Reals) -> bool:
    return bool((np.frexp(factor)[0] == 0.5).all())


def _order_after_space_to_depth(r: int, users: Sequence[Step]) -> NDArray[np.int64]:
    """For each channel after SpaceToDepth, the one that a pixel unshuffle would have there."""
    (user,) = users
    assert isinstance(user.op, Conv | Project)
    channels = user.op.weight.shape[1] // r**2
    return np.arange(channels * r**2).reshape(channels, r**2).T.ravel()


def _reordered(weight: Integers | Reals, order: NDArray[np.int64] | None) -> NDArray[np.float64]:
    return (weight if order is None else weight[:, order]).astype(np.float64)
