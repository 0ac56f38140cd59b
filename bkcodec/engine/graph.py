"""ONNX graphs under construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 17, 8  # of ONNX Runtime 1.15 and later
SMALL = 1024  # numbers of a constant that is looked for among those that there are
EXTENSIONS = "com.microsoft"  # ONNX Runtime's own operators


class Graph:
    """Nodes and constants, in the order in which they are added; maps are [1, h, w, C]."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._small: dict[tuple[Any, ...], str] = {}  # names of constants that may come again

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds one; returns its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, array: NDArray[np.generic] | np.generic) -> str:
        """Adds one, or finds it; returns its name."""
        array = np.asarray(array)
        key = (array.dtype, array.shape, array.tobytes()) if array.size <= SMALL else None
        if key is not None and key in self._small:
            return self._small[key]
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        if key is not None:
            self._small[key] = name
        return name

    def sides(self, name: str) -> str:
        """Height and width of a map."""
        first, end = (self.constant(np.array([n])) for n in (1, 3))
        return self.node("Slice", self.node("Shape", name), first, end)

    def shuffle(self, x: str, r: int) -> str:
        """A pixel shuffle of channels that are sorted by their place in a block."""
        split = self.node("Reshape", x, self.constant(np.array([0, 0, 0, r, -1])))
        moved = self.node("Transpose", split, perm=[0, 1, 3, 2, 4])
        sides = self.node("Mul", self.sides(x), self.constant(np.array([r, r])))
        first, last = (self.constant(np.array([n])) for n in (1, -1))
        return self.node("Reshape", moved, self.node("Concat", first, sides, last, axis=0))

    def unshuffle(self, x: str, r: int) -> str:
        """The inverse; its channels are sorted by their place in a block."""
        sides = self.node("Div", self.sides(x), self.constant(np.array([r, r])))
        rows, columns = (
            self.node("Gather", sides, self.constant(np.array([i])), axis=0) for i in (0, 1)
        )
        one, side, rest = (self.constant(np.array([n])) for n in (1, r, -1))
        shape = self.node("Concat", one, rows, side, columns, rest, axis=0)
        moved = self.node("Transpose", self.node("Reshape", x, shape), perm=[0, 1, 3, 2, 4])
        target = self.node("Concat", one, sides, rest, axis=0)
        return self.node("Reshape", moved, target)


def open_session(
    graph: Graph,
    name: str,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    threads: int = 1,
) -> onnxruntime.InferenceSession:
    """A finished graph, ready to run on the CPU; threads 0 = one for each core."""
    made = helper.make_graph(graph.nodes, name, inputs, outputs, initializer=graph.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(EXTENSIONS, 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Nothing is left to be fused, and looking for it takes a third of the time.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
