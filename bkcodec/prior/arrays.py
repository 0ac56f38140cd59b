"""The arrays of a context prior: which there are, of what type and shape (formats/bkc-1.md)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bkcodec.prior.tables import Integers, Tables


class Phase(NamedTuple):
    """Cells that are coded at once.

    Attributes:
        spacing: of the lattices that the cells form, along rows and columns.
        origins: row and column of the first cell of each lattice.
        reach: distance of the neighbours that are looked at; all of a coarse phase's nearer ones
            are still unknown.
    """

    spacing: int
    origins: tuple[tuple[int, int], ...]
    reach: int = 1


_FOUR = tuple(Phase(2, (origin,)) for origin in ((0, 0), (1, 1), (0, 1), (1, 0)))


def _from_coarse(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Phases on every second row and column first, then the other three quarters of the cells."""
    coarse = tuple(
        Phase(2 * p.spacing, tuple((2 * r, 2 * c) for r, c in p.origins), 2 * p.reach)
        for p in phases
    )
    return coarse + _FOUR[1:]


# By their number. Seven and ten are four whose first phase is cut into phases again.
PHASES = {
    1: (Phase(1, ((0, 0),)),),
    2: (Phase(2, ((0, 0), (1, 1))), Phase(2, ((0, 1), (1, 0)))),
    4: _FOUR,
    7: _from_coarse(_FOUR),
    10: _from_coarse(_from_coarse(_FOUR)),
}


def phase_map(n_phases: int, rows: int, columns: int) -> NDArray[np.int8]:
    """The phase of each cell [rows, columns]."""
    phases = np.empty((rows, columns), np.int8)
    for index, phase in enumerate(PHASES[n_phases]):
        for row, column in phase.origins:
            phases[row :: phase.spacing, column :: phase.spacing] = index
    return phases


def hidden_width(arrays: dict[str, Integers]) -> int:
    """Width of all networks."""
    return next((len(v) for k, v in arrays.items() if k.endswith(".2.weight")), 0)


def check_shapes(
    arrays: dict[str, Integers], groups: list[int], phases: list[int], first: Tables
) -> None:
    """Compare every array with the table in formats/bkc-1.md before anything is computed.

    Raises:
        KeyError: an array is missing.
        ValueError: one of another type or shape.
    """
    n, levels, hidden = len(arrays["order"]), len(arrays["coded"]), hidden_width(arrays)
    small = len(groups) <= n and all(1 <= size <= n for size in groups)
    if (
        not small
        or sum(groups) != n
        or len(phases) != len(groups)
        or not set(phases) <= set(PHASES)
    ):
        raise ValueError(f"groups and phases for {n} channels")
    if first.lengths.shape != (levels, groups[0]):
        raise ValueError("tables of the first phase")
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "groups": ("int16", (len(groups),)),
        "phases": ("int16", (len(groups),)),
        "order": ("int16", (n,)),
        "coded": ("uint8", (levels, n)),
        "gain": ("int32", (levels, n)),
        "mean_gain": ("int32", (levels, n)),
        "magnitude": ("uint8", (256,)),
        "fine": ("int16", (1,)),
        "excess.lengths": ("uint16", (1, 1)),
    }
    begin = 0
    for g, size in enumerate(groups):
        if g:
            shapes[f"{g}.shared"] = ("int8", (9 * 2 * begin, hidden))
        for p in range(phases[g]):
            if (g, p) != (0, 0):
                layers = ((9 * 2 * size * (p > 0), hidden), (hidden, hidden), (hidden, 2 * size))
                for i, (inputs, outputs) in enumerate(layers, 1):
                    shapes[f"{g}.{p}.{i}.weight"] = ("int8", (inputs, outputs))
                    shapes[f"{g}.{p}.{i}.bias"] = ("int32", (levels, outputs))
                    shapes[f"{g}.{p}.{i}.shift"] = ("int8", (outputs,))
        begin += size
    for name, expected in shapes.items():
        actual = (arrays[name].dtype.name, arrays[name].shape)
        if actual != expected:
            raise ValueError(f"{name} is {actual}, not {expected}")
