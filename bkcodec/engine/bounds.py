"""How large the numbers of a program can get: checked before it runs."""

from __future__ import annotations

import numpy as np

from bkcodec.engine.program import (
    EXACT32,
    EXACT64,
    Add,
    Concat,
    Conv,
    Film,
    Op,
    Program,
    Project,
    Scale,
)

WEIGHT_MAX = 63  # of a convolution: products of two fit into 16 bits (2 * 255 * 63 < 2^15)


def check(program: Program, largest_input: int, largest_film: tuple[int, int]) -> None:
    """Refuse a program in which a number could leave what holds it exactly.

    Args:
        program: the network.
        largest_input: size of the largest number in its inputs.
        largest_film: sizes of the largest gain and bias.

    Raises:
        ValueError: where, and how large.
    """
    sizes = dict.fromkeys(range(len(program.inputs)), float(largest_input))
    for number, step in enumerate(program.steps):
        inputs = [sizes[value] for value in step.inputs]
        size = sizes[step.output] = _largest(step.op, inputs, largest_film)
        limit = EXACT64 if isinstance(step.op, Project) else EXACT32
        if not size < limit:
            kind = type(step.op).__name__
            raise ValueError(f"{program.name}, step {number} ({kind}) could reach {size:.4g}")


def _largest(op: Op, inputs: list[float], film: tuple[int, int]) -> float:
    match op:
        case Conv():
            largest, weight = max(op.high, -op.low), op.weight
            if inputs[0] > largest or max(weight.max(), -int(weight.min())) > WEIGHT_MAX:
                return float("inf")
            sums = np.abs(weight).sum(axis=(1, 2, 3), dtype=np.int64) * largest
            return float((sums + np.abs(op.bias.astype(np.int64))).max())
        case Project():
            sums = np.abs(op.weight).sum(axis=1) * inputs[0] + np.abs(op.bias)
            return float(sums.max())
        case Scale():
            is_sound = np.isfinite(op.factor).all() and (op.factor > 0).all()
            return float(max(op.high, -op.low)) if is_sound else float("inf")
        case Film():
            return inputs[0] * film[0] + film[1]
        case Add():
            return sum(inputs)
        case Concat():
            return max(inputs)
        case _:
            return inputs[0]
