"""Programs that see a picture band by band, from top to bottom, and compute nothing twice.

A convolution of 3 x 3 keeps the last two rows of its input for the next band, so its output is a
row late; what meets a later map is held back by as many rows. After the last band nothing is late
any more. The results are those of the whole picture.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from bkcodec.engine.onnx import GraphBuilder, Map, feed_of, map_info
from bkcodec.engine.program import (
    Add,
    Concat,
    Conv,
    CropLike,
    PadEven,
    Program,
    Project,
    Scale,
    Shuffle,
    Step,
    Unshuffle,
)

ONLY, FIRST, MIDDLE, LAST = "only", "first", "middle", "last"
# By whether there are bands above, and whether it is the last one.
PLACES = {(False, True): ONLY, (False, False): FIRST, (True, False): MIDDLE, (True, True): LAST}
Held = list[NDArray[np.generic]]  # rows of one band for the next


class Stream:
    """Runs a program on bands of a picture, each as wide as the picture and even in height.

    Args:
        program: the network; what modulates it is the same for all cells.
        reach: of its outputs, in cells: the first band must be higher.
    """

    def __init__(self, program: Program, reach: int) -> None:
        self.program, self.reach = program, reach
        self._opened: tuple[str, onnxruntime.InferenceSession] | None = None
        self._lock = threading.Lock()

    def run(
        self, maps: Mapping[str, NDArray[np.generic]], held: Held, is_last: bool
    ) -> tuple[list[Map], Held]:
        """A band of maps [C, h, w] by name, and what is held for it; none before the first.

        Returns:
            Rows of the outputs: all that can be said by now. And what to hold for the next band.
        """
        place = PLACES[bool(held), is_last]
        feed = feed_of(self.program, maps)
        feed |= {f"held{i}": rows for i, rows in enumerate(held)}
        results = self._session(place).run(None, feed)
        n = len(self.program.outputs)
        return [out[0].transpose(2, 0, 1) for out in results[:n]], results[n:]

    def _session(self, place: str) -> onnxruntime.InferenceSession:
        with self._lock:  # strips of a picture share it
            if self._opened is None or self._opened[0] != place:
                self._opened = None  # and with it its memory
                self._opened = place, self._builder(place).session(1)
            return self._opened[1]

    def _builder(self, place: str) -> GraphBuilder:
        return GraphBuilder(self.program) if place == ONLY else _Builder(self.program, place)


class _Builder(GraphBuilder):
    """The graph for a band of several: the first one, one in the middle, the last one."""

    def __init__(self, program: Program, place: str) -> None:
        super().__init__(program)
        self.place = place
        self.late = dict.fromkeys(range(len(program.inputs)), 0)  # rows by which values are
        self.n_values = program.n_values
        self.held: list[int] = []  # their types
        self.kept: list[onnx.ValueInfoProto] = []

    def _translate(self, step: Step) -> None:
        inputs = self._aligned(step)
        late = self.late[inputs[0]]
        match step.op:
            case Conv() as op:
                late = (late + op.weight.shape[2] // 2) if op.stride == 1 else late // op.stride
            case Shuffle(r):
                late *= r
            case Unshuffle(r):
                late //= r
        self.late[step.output] = late
        if isinstance(step.op, Conv | Project):  # together with the scale that follows
            self.late[self.users[step.output][0].output] = late
        super()._translate(replace(step, inputs=inputs))

    def _aligned(self, step: Step) -> tuple[int, ...]:
        """A step's inputs, equally late, and as late as its factor needs."""
        factor = 1
        match step.op:
            case Conv() as op:
                factor = op.stride
            case Unshuffle(r):
                factor = r
            case PadEven():
                factor = 2
            case Add() | Concat() | CropLike():
                pass
            case _:
                return step.inputs
        latest = max(self.late[x] for x in step.inputs)
        latest += -latest % factor
        return tuple(self._held_back(x, latest - self.late[x]) for x in step.inputs)

    def _held_back(self, x: int, rows: int) -> int:
        """A value that comes so many rows later."""
        if not rows:
            return x
        name = self._with_held(x, rows)
        if self.place != LAST:
            name = self._rows(name, 0, -rows)
        return self._value(x, name, self.late[x] + rows)

    def _conv(self, op: Conv, scale: Scale, x: int, out: int) -> None:
        if op.weight.shape[2] == 3:
            x = self._value(x, self._with_held(x, 2), self.late[x])
        super()._conv(op, scale, x, out)

    def _geometry(self, op: Conv) -> dict[str, list[int]]:
        geometry = super()._geometry(op)
        if op.weight.shape[2] == 3:
            geometry["pads"] = [int(self.place == FIRST), 1, int(self.place == LAST), 1]
        return geometry

    def _with_held(self, x: int, rows: int) -> str:
        """The tensor of a value, below the last rows of the band before; its own ones are kept."""
        is_small = x in self.small
        name = self.small[x][0] if is_small else self._whole(x)
        kind = TensorProto.UINT8 if is_small else TensorProto.FLOAT
        index = len(self.held)
        self.held.append(kind)
        if self.place != FIRST:
            name = self.node("Concat", f"held{index}", name, axis=1)
        if self.place != LAST:
            self.kept.append(map_info(self._rows(name, -rows, np.iinfo(np.int64).max), kind))
        return name

    def _rows(self, name: str, begin: int, end: int) -> str:
        first, last, axis = (self.constant(np.array([n])) for n in (begin, end, 1))
        return self.node("Slice", name, first, last, axis)

    def _value(self, x: int, name: str, late: int) -> int:
        """A tensor as a value that is otherwise like x."""
        self.n_values += 1
        if x in self.small:
            self.small[self.n_values] = (name, self.small[x][1])
        else:
            self.names[self.n_values] = name
        if x in self.blocks:
            self.blocks[self.n_values] = self.blocks[x]
        self.late[self.n_values] = late
        return self.n_values

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        held = [] if self.place == FIRST else self.held
        return super()._inputs() + [map_info(f"held{i}", kind) for i, kind in enumerate(held)]

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        return super()._outputs() + self.kept
