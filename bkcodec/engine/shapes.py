"""Whether the arrays of a bundle fit together: checked before a program runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.program import (
    Add,
    Concat,
    Conv,
    Film,
    Op,
    Program,
    Project,
    Scale,
    Shuffle,
    Unshuffle,
)
from bkcodec.options import LEVELS

Arrays = Mapping[str, NDArray[Any]]
REALS = {"y_std": "f4", "steps": "f4", "alphas": "f8", "spreads": "f8"}  # all others are whole


def check_arrays(arrays: Arrays) -> None:
    """Refuse arrays of other types, and tables of other sizes or with values that cannot be.

    Raises:
        KeyError: one is missing.
        ValueError: which one does not fit.
    """
    for name, array in arrays.items():
        is_right = array.dtype == REALS[name] if name in REALS else array.dtype.kind in "iu"
        if not is_right or not array.ndim:
            raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
        if name.endswith(".exponent") and (array.shape != (1,) or abs(int(array[0])) > 64):
            raise ValueError(f"{name} is not an exponent")
    n_channels, size = len(arrays["y_std"]), arrays["embedding"].shape[-1]
    timesteps = len(arrays["time"])
    shapes = {
        "y_std": (n_channels,),
        "steps": (LEVELS, n_channels),
        "dequantise": (LEVELS, n_channels),
        "embedding": (LEVELS, size),
        "time": (timesteps, size),
        "start": (LEVELS,),
        "alphas": (timesteps,),
    }
    for name in (k.removesuffix(".weight") for k in arrays if k.endswith(".film.weight")):
        shapes[f"{name}.weight"] = (2 * film_channels(arrays, name), size)
        shapes[f"{name.removesuffix('film')}conv.exponent"] = (1,)  # of a stack's block or not
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
    for name in ("y_std", "steps"):
        if not (np.isfinite(arrays[name]) & (arrays[name] > 0)).all():
            raise ValueError(f"{name} has values that are not positive")
    if not ((arrays["start"] >= 0) & (arrays["start"] < timesteps)).all():
        raise ValueError("start is beyond the noise schedule")


def film_channels(arrays: Arrays, name: str) -> int:
    """Channels that a modulation has a gain and a bias for (ValueError: half a one)."""
    gains, rest = divmod(arrays[f"{name}.bias"].size, 2)
    if rest or arrays[f"{name}.bias"].ndim != 1:
        raise ValueError(f"{name}.bias is not of pairs")
    return gains


def check_program(
    program: Program, inputs: Sequence[int], outputs: Sequence[int], arrays: Arrays
) -> None:
    """Refuse a program whose maps have other numbers of channels than its arrays.

    Args:
        program: the network.
        inputs: channels of its inputs.
        outputs: channels that its outputs must have.
        arrays: of the bundle, for what modulates.

    Raises:
        ValueError: where it does not fit.
    """
    channels = dict(enumerate(inputs))
    for number, step in enumerate(program.steps):
        given = [channels[value] for value in step.inputs]
        made = _made(step.op, given, arrays)
        if made is None:
            kind = type(step.op).__name__
            raise ValueError(
                f"{program.name}, step {number} ({kind}) does not fit {given} channels"
            )
        channels[step.output] = made
    found = [channels[value] for value in program.outputs]
    if found != list(outputs):
        raise ValueError(f"{program.name} makes maps of {found} channels")


def _made(op: Op, given: list[int], arrays: Arrays) -> int | None:
    """Channels of what an operation makes; None where it cannot."""
    n, made, fits = given[0], given[0], True
    match op:
        case Conv(weight, bias, stride):
            made = len(weight)
            sides = {(1, 1), (3, 3)} if stride == 1 else {(stride, stride)}
            fits = weight.shape[1:2] == (n,) and weight.shape[2:] in sides
            fits = fits and bias.shape == (made,)
        case Project(weight, bias):
            made = len(weight)
            fits = weight.shape == (made, n) and bias.shape == (made,)
        case Scale(factor):
            fits = factor.shape in {(1,), (n,)}
        case Film(name):
            fits = film_channels(arrays, name) == n and f"{name}.weight" in arrays
        case Add():
            fits = given[1] == n
        case Concat():
            made = sum(given)
        case Shuffle(factor):
            made, rest = divmod(n, factor**2)
            fits = not rest
        case Unshuffle(factor):
            made = n * factor**2
        case _:
            pass
    return made if fits and made > 0 else None
