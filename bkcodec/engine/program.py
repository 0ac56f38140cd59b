"""An integer network as data: a list of steps over integer maps.

A map is [1, C, h, w] of integers. What a backend uses to hold them is its own affair: every step
says how large its numbers can get, and stays where the type it needs is exact. Sums of a
convolution are below 2^24, which float32 holds; those of a projection below 2^53, which float64
holds until they are rounded to float32. So the order of a sum does not matter, and all backends
give the same integers.

formats/networks-1.md says what each step computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT32, EXACT64 = 2**24, 2**53  # float32 and float64 hold all integers below these
UNSIGNED, SIGNED = (0, 255), (-128, 127)

Integers = NDArray[np.integer[Any]]
Reals = NDArray[np.float64]
Factors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Conv:
    """Sums of a convolution with zero padding that keeps the size, or of one with stride.

    Attributes:
        weight: int8 [outputs, inputs, k, k]; k is 1 or 3, or the stride.
        bias: int32 [outputs], added to the sums.
        stride: 1, or k.
        low, high: range of the inputs.
    """

    weight: Integers
    bias: Integers
    stride: int
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class Project:
    """Sums of a 1x1 convolution with weights of many bits, in float64, then rounded to float32.

    Attributes:
        weight: whole float64 [outputs, inputs].
        bias: whole float64 [outputs].
    """

    weight: Reals
    bias: Reals


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """clip(round(x * factor), low, high), with a product of float32; halves go to the even one.

    Attributes:
        factor: [C] or [1]. Where all are powers of two the product is exact.
        low, high: range of the result.
    """

    factor: Factors
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Film:
    """x * gain + bias with maps that a run is given, [C, 1 or h, 1 or w].

    Attributes:
        name: of the two inputs, ``NAME.gain`` and ``NAME.bias``.
        finer: how many times x's cells divide a cell of the maps, along each side; 1/2 where two
            cells of the maps make one.
    """

    name: str
    finer: float = 1


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two maps."""


@dataclass(frozen=True, slots=True)
class Concat:
    """Channels of several maps, one after the other."""


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Pixel shuffle by a factor: [C r^2, h, w] -> [C, h r, w r]."""

    factor: int


@dataclass(frozen=True, slots=True)
class Unshuffle:
    """The inverse of ``Shuffle``."""

    factor: int


@dataclass(frozen=True, slots=True)
class PadEven:
    """A zero row and column at the end where the height or the width is odd."""


@dataclass(frozen=True, slots=True)
class CropLike:
    """The first map, cut to the height and width of the second."""


Op = Conv | Project | Scale | Film | Add | Concat | Shuffle | Unshuffle | PadEven | CropLike


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operation: which values it takes and which value it gives."""

    op: Op
    inputs: tuple[int, ...]
    output: int


@dataclass(slots=True, eq=False)
class Program:
    """A network.

    Attributes:
        name: for messages.
        inputs: names of the maps that a run is given, but for those of ``Film``; value i is
            input i.
        byte_inputs: those of them that are bytes.
        steps: in order.
        outputs: values that a run returns.
        n_values: so many values there are.
    """

    name: str
    inputs: tuple[str, ...]
    byte_inputs: tuple[str, ...] = ()
    steps: list[Step] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    n_values: int = 0

    def __post_init__(self) -> None:
        self.n_values = len(self.inputs)

    def add(self, op: Op, *inputs: int) -> int:
        """Append a step; returns its value."""
        self.steps.append(Step(op, inputs, self.n_values))
        self.n_values += 1
        return self.n_values - 1

    @property
    def films(self) -> list[Film]:
        """The modulations, in order."""
        return [step.op for step in self.steps if isinstance(step.op, Film)]
