"""The networks of our own latent space as programs, from the integers of a bundle.

Every value has an exponent e: the integer n stands for n * 2^-e.
Streams of residual blocks lie on one grid each, finer than what any convolution takes of them;
each convolution rounds its input to its own 8 bits (11 where y and z enter).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.program import (
    SIGNED,
    UNSIGNED,
    Add,
    Concat,
    Conv,
    CropLike,
    Film,
    PadEven,
    Program,
    Project,
    Reals,
    Scale,
    Shuffle,
    Unshuffle,
)

Arrays = dict[str, NDArray[Any]]

STEM = (-1024, 1023)  # where y and z enter
STREAM_LIMIT = 2**20  # of what is added to a stream: sixteen of them stay below 2^24
FINER = 6  # bits by which a stream is finer than the finest input of its convolutions
Y_EXPONENT, Z_EXPONENT = 14, 12
LATENT_LIMIT = 2**22  # of y and z in these units
FILM_BITS, GAIN_EXPONENT, FILM_LIMIT = 3, 9, 4095  # of what is modulated, and of the gains
GAIN_LIMIT, BIAS_LIMIT = 2**11 - 1, 2**22
CONDITION_EXPONENT, FILM_EXPONENT = 10, 12  # of conditions, and of the weights that make gains
PIXEL_EXPONENT = 8  # of pictures before they are rounded to pixels
STACKS = (
    *("vae.encoder.fine", "vae.encoder.coarse", "h_a.blocks", "h_s.blocks"),
    *("unet.before", "unet.deep", "unet.after", "unet.texture_after"),
    *("vae.decoder.coarse", "vae.decoder.fine", "vae.decoder.texture"),
)
ONE_STEP, MANY_STEPS = "", "texture_"  # the U-Net's branches: from the mean, from noisy latents


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a program; its exponent is that of all channels, or [C]."""

    index: int
    exponent: Reals


class Builder:
    """Writes programs from a bundle's arrays."""

    def __init__(self, name: str, inputs: tuple[str, ...], arrays: Arrays) -> None:
        self.program, self.arrays = Program(name, inputs), arrays

    def input(self, index: int, exponent: float) -> Value:
        """One of the program's inputs."""
        return Value(index, np.array([float(exponent)]))

    def scale(
        self, x: Value, exponent: float, limits: tuple[int, int], factor: Reals | float = 1.0
    ) -> Value:
        """x * factor on another grid, rounded and clipped."""
        with np.errstate(over="ignore"):  # bounds refuse what is infinite
            factors = np.atleast_1d(np.exp2(exponent - x.exponent) * factor).astype(np.float32)
        index = self.program.add(Scale(factors, *limits), x.index)
        return Value(index, np.array([float(exponent)]))

    def conv(self, x: Value, name: str, limits: tuple[int, int], stride: int = 1) -> Value:
        """A convolution of x, rounded to its own input grid, where that is another."""
        exponent = float(self.arrays[f"{name}.exponent"][0])
        x = self.scale(x, exponent, limits)
        return self.sums(x, name, limits, stride)

    def sums(self, x: Value, name: str, limits: tuple[int, int], stride: int = 1) -> Value:
        """A convolution of x, which is on its input grid."""
        weight, bias, shift = (self.arrays[f"{name}.{k}"] for k in ("weight", "bias", "shift"))
        index = self.program.add(Conv(weight, bias, stride, *limits), x.index)
        return Value(index, shift.astype(np.float64))

    def project(self, x: Value, name: str, exponent: float) -> Value:
        """A linear path, rounded to a grid."""
        weight, bias = (self.arrays[f"{name}.{k}"].astype(np.float64) for k in ("weight", "bias"))
        index = self.program.add(Project(weight, bias), x.index)
        exponent_of_weights = float(self.arrays[f"{name}.exponent"][0])
        total = Value(index, x.exponent + exponent_of_weights)
        return self.scale(total, exponent, (-LATENT_LIMIT, LATENT_LIMIT))

    def add(self, x: Value, y: Value) -> Value:
        """The sum of two values on one grid."""
        return Value(self.program.add(Add(), x.index, y.index), x.exponent)

    def stream(self, sums: Value, grid: float) -> Value:
        """Sums of a convolution on a stream's grid."""
        return self.scale(sums, grid, (-STREAM_LIMIT, STREAM_LIMIT))

    def grid_of(self, *names: str) -> float:
        """That of a stream which these convolutions read."""
        return FINER + max(float(self.arrays[f"{name}.exponent"][0]) for name in names)

    def stack(self, h: Value, name: str, is_conditioned: bool = False, finer: float = 1) -> Value:
        """A row of residual blocks."""
        for i in range(depth(self.arrays, name)):
            h = self.add(h, self._branch(h, f"{name}.blocks.{i}", is_conditioned, finer))
        return h

    def reads(self, name: str) -> list[str]:
        """The convolutions that read a stack's stream inside of it."""
        return [f"{name}.blocks.{i}.reduce" for i in range(depth(self.arrays, name))]

    def _branch(self, h: Value, name: str, is_conditioned: bool, finer: float) -> Value:
        x = self.conv(h, f"{name}.reduce", SIGNED)
        inner = float(self.arrays[f"{name}.conv.exponent"][0])
        if is_conditioned:
            x = self.scale(x, inner + FILM_BITS, (-FILM_LIMIT, FILM_LIMIT))
            index = self.program.add(Film(f"{name}.film", finer), x.index)
            x = Value(index, x.exponent + GAIN_EXPONENT)
        x = self.scale(x, inner, UNSIGNED)
        x = self.sums(x, f"{name}.conv", UNSIGNED)
        x = self.conv(x, f"{name}.expand", UNSIGNED)
        return self.stream(x, float(h.exponent[0]))

    def shuffle(self, x: Value, factor: int) -> Value:
        """A pixel shuffle of a value whose channels share a grid."""
        return Value(self.program.add(Shuffle(factor), x.index), x.exponent)

    def unshuffle(self, x: Value, factor: int) -> Value:
        """The inverse."""
        return Value(self.program.add(Unshuffle(factor), x.index), x.exponent)


def analysis(arrays: Arrays) -> Program:
    """Pixels 0..255 [3, H, W], whole cells of z -> z and y, both [M, h, w]."""
    b = Builder("analysis", ("pixels",), arrays)
    b.program.byte_inputs = ("pixels",)
    x = b.input(0, 0)
    encoder = "vae.encoder"
    fine, coarse = f"{encoder}.fine", f"{encoder}.coarse"
    grid = b.grid_of(*b.reads(fine), f"{encoder}.down")
    h = b.stream(b.sums(b.unshuffle(x, 8), f"{encoder}.stem", UNSIGNED), grid)
    h = b.stack(h, fine)
    grid = b.grid_of(*b.reads(coarse), f"{encoder}.head")
    h = b.stack(b.stream(b.conv(h, f"{encoder}.down", SIGNED, 2), grid), coarse)
    y = b.project(b.unshuffle(x, 16), f"{encoder}.linear", Y_EXPONENT)
    y = b.add(y, b.stream(b.conv(h, f"{encoder}.head", SIGNED), Y_EXPONENT))
    grid = b.grid_of(*b.reads("h_a.blocks"), "h_a.head")
    h = b.stack(b.stream(b.conv(y, "h_a.stem", STEM), grid), "h_a.blocks")
    z = b.project(y, "h_a.linear", Z_EXPONENT)
    z = b.add(z, b.stream(b.conv(h, "h_a.head", SIGNED), Z_EXPONENT))
    b.program.outputs = (z.index, y.index)
    return b.program


def synthesis(arrays: Arrays) -> Program:
    """z_hat [M, h, w] -> pixels 0..255 [3, 16 h, 16 w], in one step from the mean."""
    b = Builder("synthesis", ("z_hat",), arrays)
    mean, log_scale = _knowledge(b, b.input(0, Z_EXPONENT))
    y_hat = b.add(mean, _denoised(b, mean, mean, log_scale, ONE_STEP))
    b.program.outputs = (_picture(b, y_hat, 0.0).index,)
    return b.program


def knowledge(arrays: Arrays) -> Program:
    """z_hat [M, h, w] -> what h_s says about y: mean and log scale, both [M, h, w]."""
    b = Builder("knowledge", ("z_hat",), arrays)
    parts = _knowledge(b, b.input(0, Z_EXPONENT))
    b.program.outputs = tuple(part.index for part in parts)
    return b.program


def prediction(arrays: Arrays, branch: str) -> Program:
    """Noisy y, mean and log scale -> the clean y, all [M, h, w], with one of the two branches."""
    b = Builder("prediction", ("y_t", "mean", "log_scale"), arrays)
    y_t, mean, log_scale = (b.input(i, Y_EXPONENT) for i in range(3))
    y_hat = b.add(mean, _denoised(b, y_t, mean, log_scale, branch))
    b.program.outputs = (y_hat.index,)
    return b.program


def picture(arrays: Arrays, texture: float) -> Program:
    """Standardised y_hat [M, h, w] -> pixels 0..255 [3, 16 h, 16 w].

    ``texture``: 0..1, weight of what the VAE decoder adds after several steps.
    """
    b = Builder("picture", ("y_hat",), arrays)
    b.program.outputs = (_picture(b, b.input(0, Y_EXPONENT), texture).index,)
    return b.program


def _knowledge(b: Builder, z: Value) -> tuple[Value, Value]:
    grid = b.grid_of(*b.reads("h_s.blocks"), "h_s.mean", "h_s.log_scale")
    h = b.stack(b.stream(b.conv(z, "h_s.stem", STEM), grid), "h_s.blocks", is_conditioned=True)
    inverse = 1 / b.arrays["y_std"].astype(np.float64)
    mean = b.project(z, "h_s.linear", Y_EXPONENT)
    limits = (-STREAM_LIMIT, STREAM_LIMIT)
    mean = b.add(mean, b.scale(b.conv(h, "h_s.mean", SIGNED), Y_EXPONENT, limits, inverse))
    log_scale = b.conv(h, "h_s.log_scale", SIGNED)
    return mean, b.scale(log_scale, Y_EXPONENT, (-6 * 2**Y_EXPONENT, 2 * 2**Y_EXPONENT))


def _denoised(b: Builder, y_t: Value, mean: Value, log_scale: Value, branch: str) -> Value:
    """What the U-Net adds to the mean, through one of its two branches."""
    exponent = float(b.arrays["unet.stem.exponent"][0])
    parts = [b.scale(part, exponent, STEM) for part in (y_t, mean, log_scale)]
    joined = b.program.add(Concat(), *(part.index for part in parts))
    before, deep, after = "unet.before", "unet.deep", "unet.after"
    grid = b.grid_of(*b.reads(before), "unet.down", *b.reads(after), "unet.head")
    h = b.stream(b.sums(Value(joined, parts[0].exponent), "unet.stem", STEM), grid)
    h = b.stack(h, before, is_conditioned=True)
    even = Value(b.program.add(PadEven(), h.index), h.exponent)
    deep_grid = b.grid_of(*b.reads(deep), "unet.up")
    d = b.stream(b.conv(even, "unet.down", SIGNED, 2), deep_grid)
    d = b.stack(d, deep, is_conditioned=True, finer=0.5)
    up = b.shuffle(b.stream(b.conv(d, "unet.up", SIGNED), grid), 2)
    cut = Value(b.program.add(CropLike(), up.index, h.index), up.exponent)
    h = b.stack(b.add(h, cut), f"unet.{branch}after", is_conditioned=True)
    return b.stream(b.conv(h, f"unet.{branch}head", SIGNED), Y_EXPONENT)


def _picture(b: Builder, y_hat: Value, texture: float) -> Value:
    """The VAE decoder: standardised y_hat -> pixels."""
    decoder = "vae.decoder"
    y_std = b.arrays["y_std"].astype(np.float64)
    exponent = float(b.arrays[f"{decoder}.stem.exponent"][0])
    coarse, fine, extra = (f"{decoder}.{part}" for part in ("coarse", "fine", "texture"))
    grid = b.grid_of(*b.reads(coarse), f"{decoder}.up")
    x = b.scale(y_hat, exponent, STEM, y_std)
    h = b.stack(b.stream(b.sums(x, f"{decoder}.stem", STEM), grid), coarse)
    fine_grid = b.grid_of(*b.reads(fine), f"{decoder}.head")
    h = b.shuffle(b.stream(b.conv(h, f"{decoder}.up", SIGNED), fine_grid), 2)
    h = b.stack(h, fine)
    limits = (-STREAM_LIMIT, STREAM_LIMIT)
    pixels = b.shuffle(b.project(y_hat, f"{decoder}.linear", PIXEL_EXPONENT), 16)
    residuals = [(b.conv(h, f"{decoder}.head", SIGNED), 127.5)]
    if texture:
        more = b.conv(b.stack(h, extra), f"{decoder}.texture_head", SIGNED)
        residuals.append((more, 127.5 * texture))
    for residual, factor in residuals:
        part = b.scale(residual, PIXEL_EXPONENT, limits, factor)
        pixels = b.add(pixels, b.shuffle(part, 8))
    return b.scale(pixels, 0, UNSIGNED)


def depth(arrays: Arrays, name: str) -> int:
    """Blocks of a stack."""
    return next(n for n in count() if f"{name}.blocks.{n}.reduce.weight" not in arrays)


class Reaches(NamedTuple):
    """Cells of z on each side of a cell that matter for what each program says about it.

    Where the U-Net is part of it the number is even, as it halves the cells.
    """

    analysis: int
    synthesis: int
    knowledge: int
    prediction: int
    picture: int


def reaches(arrays: Arrays) -> Reaches:
    """Those of a bundle's programs.

    One for each 3x3 window at 1/16, half of one at 1/8, two at 1/32, where a cell lies in a pair
    of cells besides.
    """
    n = {name: depth(arrays, name) for name in STACKS}
    encoder = n["vae.encoder.coarse"] + n["vae.encoder.fine"] / 2 + n["h_a.blocks"]
    unet = n["unet.before"] + 2 * n["unet.deep"] + 1
    decoder = n["vae.decoder.coarse"] + n["vae.decoder.fine"] / 2
    one_step = n["h_s.blocks"] + unet + n["unet.after"] + math.ceil(decoder)
    one_of_many = unet + max(n["unet.after"], n["unet.texture_after"])
    return Reaches(
        math.ceil(encoder),
        one_step + one_step % 2,
        n["h_s.blocks"],
        one_of_many + one_of_many % 2,
        math.ceil(decoder + n["vae.decoder.texture"] / 2),
    )
