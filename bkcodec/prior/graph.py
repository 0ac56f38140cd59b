"""``predict`` and ``spread`` of ``exact`` in ONNX Runtime: the same integers, in less time.

A graph serves all networks, whose weights are inputs. The first layer multiplies bytes, the rest
works in float32 and, where numbers could leave 2^24, in float64: they hold every number exactly.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from bkcodec.engine.graph import Graph, open_session
from bkcodec.prior.exact import (
    FRACTIONS,
    HIDDEN_MAX,
    ZERO,
    Features,
    Feed,
    Floats,
    Numbers,
    Weights,
    zero,
)

FLOAT, DOUBLE, BYTE = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UINT8
Kind = np.dtype[np.integer[Any]]
BYTES = {np.dtype(np.uint8): BYTE, np.dtype(np.int8): TensorProto.INT8}


def predict(feed: Feed) -> list[Numbers]:
    """See ``exact.predict``."""
    outputs: list[Numbers] = _predictor(feed["first.weight"].dtype).run(None, feed)
    return outputs


def spread(windows: Features, weight: Weights) -> Floats:
    """See ``exact.spread``."""
    sums: Floats = _spreader(weight.dtype).run(None, {"windows": windows, "weight": weight})[0]
    return sums


@cache
def _spreader(kind: Kind) -> onnxruntime.InferenceSession:
    builder = _Builder()
    sums = builder.spread("weight", kind)
    inputs = [_info("windows", BYTE), _info("weight", BYTES[kind])]
    return open_session(builder, "spread", inputs, [_info(sums, FLOAT)])


@cache
def _predictor(kind: Kind) -> onnxruntime.InferenceSession:
    builder = _Builder()
    total = builder.node("Add", builder.spread("first.weight", kind), "total")
    h = builder.clipped(builder.finished("first", total))
    h = builder.clipped(builder.layer("second", h))
    outputs = builder.distributions(h)
    kinds = {"windows": BYTE, "total": FLOAT, "gain": DOUBLE}
    kinds |= {"first.weight": BYTES[kind], "first.bias": FLOAT}
    for name in ("second", "mean", "width"):
        kinds |= {f"{name}.{kind}": FLOAT for kind in ("weight", "bias")}
    inputs = [_info(name, kind) for name, kind in kinds.items()]
    rows = ["limits", *(f"{name}.scale" for name in ("first", "second", "mean", "width"))]
    inputs += [helper.make_tensor_value_info(name, FLOAT, [None]) for name in rows]
    found = [_info(name, TensorProto.INT32) for name in outputs]
    return open_session(builder, "predict", inputs, found)


class _Builder(Graph):
    """Adds the parts of ``exact.predict``."""

    def spread(self, weight: str, kind: Kind) -> str:
        zeros = self.constant(np.uint8(ZERO)), self.constant(kind.type(zero(kind)))
        return self.node("Cast", self.node("MatMulInteger", "windows", weight, *zeros), to=FLOAT)

    def finished(self, name: str, total: str) -> str:
        total = self.node("Mul", self.node("Add", total, f"{name}.bias"), f"{name}.scale")
        return self.node("Floor", total)

    def layer(self, name: str, h: str) -> str:
        return self.finished(name, self.node("MatMul", h, f"{name}.weight"))

    def clipped(self, h: str) -> str:
        return self.node("Clip", h, self.number(0), self.number(HIDDEN_MAX))

    def number(self, value: float) -> str:
        return self.constant(np.float32(value))

    def distributions(self, h: str) -> list[str]:
        limits = (self.constant(np.array(i)) for i in range(3))
        mean_max, width_max, fine = (self.node("Gather", "limits", i) for i in limits)
        wide = self.node("Cast", self.layer("mean", h), to=DOUBLE)
        half = self.constant(np.float64(0.5))
        wide = self.node("Floor", self.node("Add", self.node("Mul", wide, "gain"), half))
        mean = self.node("Max", self.node("Cast", wide, to=FLOAT), self.node("Neg", mean_max))
        mean = self.node("Min", mean, mean_max)
        width = self.node("Min", self.layer("width", h), width_max)
        width = self.node("Max", width, self.number(0))
        symbols = self.node("Mul", mean, self.number(1 / FRACTIONS))
        rounded = self.node("Floor", self.node("Add", symbols, self.number(0.5)))
        rest = self.node("Sub", mean, self.node("Mul", rounded, self.number(FRACTIONS)))
        rest = self.node("Where", self.node("Less", width, fine), rest, self.number(0))
        table = self.node("Mul", width, self.number(FRACTIONS))
        table = self.node("Add", self.node("Add", table, rest), self.number(FRACTIONS // 2))
        return [self.node("Cast", x, to=TensorProto.INT32) for x in (rounded, table)]


def _info(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None, None])
