"""ONNX Runtime as a backend: programs become graphs when they are loaded.

Maps are [1, h, w, C] here: what works on single places is then a product of matrices.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from weakref import WeakSet

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bkcodec.engine.graph import open_session
from bkcodec.engine.products import Products
from bkcodec.engine.program import (
    Add,
    Concat,
    Conv,
    CropLike,
    Film,
    PadEven,
    Program,
    Project,
    Scale,
    Shuffle,
    Step,
    Unshuffle,
)
from bkcodec.engine.reference import conditions_at

Map = NDArray[np.float32]


_GIVE_BACK = ("memory.enable_memory_arena_shrinkage", "cpu:0")


class OnnxNetwork:
    """Runs a program in ONNX Runtime on the CPU.

    Args:
        program: the network.
        threads: that it may use; 0 = one for each core.
        keeps: whether it keeps the memory of a run for the next one.
    """

    def __init__(self, program: Program, threads: int = 0, keeps: bool = False) -> None:
        self.program, self._threads = program, threads
        self._options = onnxruntime.RunOptions()
        if not keeps:
            self._options.add_run_config_entry(*_GIVE_BACK)
        self._session: onnxruntime.InferenceSession | None = self._open()
        _NETWORKS.add(self)

    def _open(self) -> onnxruntime.InferenceSession:
        return GraphBuilder(self.program).session(self._threads)

    def close(self) -> None:
        """Give back memory and threads; the next run gets others."""
        self._session = None

    def run(self, maps: Mapping[str, NDArray[np.generic]]) -> list[Map]:
        """Maps [C, h, w] by name -> the outputs."""
        session = self._session = self._session or self._open()
        feed = feed_of(self.program, maps)
        return [out[0].transpose(2, 0, 1) for out in session.run(None, feed, self._options)]


def feed_of(
    program: Program, maps: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Maps [C, h, w] by name -> what a session takes, [1, h, w, C]."""
    feed = {name: maps[name] for name in program.inputs}
    for film in program.films:
        for name in (f"{film.name}.gain", f"{film.name}.bias"):
            feed[name] = conditions_at(maps[name], film.finer)
    kinds = dict.fromkeys(program.byte_inputs, np.uint8)
    return {
        k: np.ascontiguousarray(v.transpose(1, 2, 0), kinds.get(k, np.float32))[None]
        for k, v in feed.items()
    }


def _close_all() -> None:
    for network in list(_NETWORKS):
        network.close()


_NETWORKS: WeakSet[OnnxNetwork] = WeakSet()
if hasattr(os, "register_at_fork"):
    # A forked process has none of a session's threads, but would wait for them.
    os.register_at_fork(before=_close_all)


class GraphBuilder(Products):
    """Translates a program, step by step."""

    def session(self, threads: int) -> onnxruntime.InferenceSession:
        """The whole graph."""
        for step in self.program.steps:
            if step.output not in self.fused:
                self._translate(step)
        inputs, outputs = self._inputs(), self._outputs()
        return open_session(self, self.program.name, inputs, outputs, threads)

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        films = [f"{film.name}.{kind}" for film in self.program.films for kind in ("gain", "bias")]
        inputs = [map_info(name) for name in films]
        for name in self.program.inputs:
            is_byte = name in self.program.byte_inputs
            inputs.append(map_info(name, TensorProto.UINT8 if is_byte else TensorProto.FLOAT))
        return inputs

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        return [self._output(value) for value in self.program.outputs]

    def _output(self, value: int) -> onnx.ValueInfoProto:
        """Bytes where they are enough."""
        name, zero = self.small.get(value, ("", None))
        return map_info(name, TensorProto.UINT8) if zero == 0 else map_info(self._whole(value))

    def _translate(self, step: Step) -> None:
        x, out = step.inputs, step.output
        match step.op:
            case Conv() | Project() as op:
                self._multiply(op, x[0], out)
            case Scale() as op:
                self._scale(op, x[0], out)
            case Film(name):
                scaled = self.node("Mul", self._whole(x[0]), f"{name}.gain")
                self.names[out] = self.node("Add", scaled, f"{name}.bias")
            case Add():
                self.names[out] = self.node("Add", *map(self._whole, x))
            case Concat():
                self.names[out] = self.node("Concat", *map(self._whole, x), axis=3)
            case Shuffle(r):
                assert self.blocks[x[0]] == r
                self.names[out] = self.shuffle(self._whole(x[0]), r)
            case Unshuffle(r):
                self.blocks[out] = r
                if x[0] in self.small:
                    name, zero = self.small[x[0]]
                    self.small[out] = (self.unshuffle(name, r), zero)
                else:
                    self.names[out] = self.unshuffle(self._whole(x[0]), r)
            case PadEven():
                odd = self.node(
                    "Mod", self.sides(self._whole(x[0])), self.constant(np.array([2, 2]))
                )
                before, after = (self.constant(np.zeros(n, np.int64)) for n in (5, 1))
                pads = self.node("Concat", before, odd, after, axis=0)
                self.names[out] = self.node("Pad", self._whole(x[0]), pads)
            case CropLike():
                starts, axes = (self.constant(np.array(v)) for v in ([0, 0], [1, 2]))
                sides = self.sides(self._whole(x[1]))
                self.names[out] = self.node("Slice", self._whole(x[0]), starts, sides, axes)


def map_info(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Of a map, as an input or output."""
    return helper.make_tensor_value_info(name, kind, [1, None, None, None])
