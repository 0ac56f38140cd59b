"""The integer networks of a bundle, written from formats/networks-1.md alone.

This module shares no code with bkcodec. It is slow and plain: every map is a float64 array of whole
numbers, which stay below 2^53, so that float64 arithmetic on them is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
Range = tuple[float, float]

# The table in "Grids"
BEHIND_RELU: Range = (0, 255)
OTHER_INPUT: Range = (-128, 127)
STEM_INPUT: Range = (-1024, 1023)
MODULATED: Range = (-4095, 4095)
PART: Range = (-(2**20), 2**20)
WIDE: Range = (-(2**22), 2**22)
Y_EXPONENT, Z_EXPONENT, PICTURE_EXPONENT = 14, 12, 8
LOG_SCALE: Range = (-6 * 2**Y_EXPONENT, 2 * 2**Y_EXPONENT)

CELL = 16


class Map(NamedTuple):
    """Whole numbers [C, h, w] that stand for n * 2^-exponent ("Numbers")."""

    n: np.ndarray
    exponent: np.ndarray | int


def analyse(arrays: Arrays, rgb: np.ndarray) -> np.ndarray:
    """From pixels to z, in units of 2^-12."""
    pixels = pad_to_cells(rgb).transpose(2, 0, 1).astype(np.float64)
    y = encode(arrays, pixels)
    h = stem(arrays, "h_a.stem", y, stream_exponent(arrays, ["h_a.blocks"], "h_a.head"))
    h = blocks(arrays, "h_a.blocks", h)
    linear = project(arrays, "h_a.linear", y)
    head = convolve(arrays, "h_a.head", h)
    z = add(scale(linear, Z_EXPONENT, WIDE), scale(head, Z_EXPONENT, PART))
    return z.n.astype(np.int64)


def synthesise(
    arrays: Arrays,
    symbols: np.ndarray,
    levels: int | np.ndarray,
    size: tuple[int, int],
    timestep: int | None = None,
    steps: int = 1,
    realism: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """From symbols to pixels of a picture of that width and height."""
    levels = np.broadcast_to(np.asarray(levels, np.int64), symbols.shape[1:])
    factors = arrays["dequantise"][levels].transpose(2, 0, 1).astype(np.float64)
    z_hat = Map(np.clip(symbols * factors, *WIDE), Z_EXPONENT)
    mean, log_scale = predict(arrays, z_hat, embed(arrays, levels))
    starts = arrays["start"][levels] if timestep is None else np.full(levels.shape, timestep)
    y_hat = denoise(arrays, mean, mean, log_scale, embed(arrays, levels, starts))
    if steps > 1:
        times = chain_times(int(np.rint(starts.mean())), steps)
        several = sample(arrays, mean, log_scale, levels, times, seed)
        y_hat = recolour(arrays, several, y_hat)
    if (steps, realism) != (1, 1):
        y_hat = blend(mean, y_hat, realism)
    texture = realism if steps > 1 else 0.0
    return decode(arrays, y_hat, texture)[: size[1], : size[0]]


# "Realism, and several steps"


def blend(mean: Map, y: Map, realism: float) -> Map:
    """Go from the mean to y as far as the realism says."""
    m = real(mean)
    return as_map(m + realism * (real(y) - m))


def recolour(arrays: Arrays, several: Map, single: Map) -> Map:
    """Several steps, but in the channels of colour the single one."""
    weight = arrays["vae.decoder.linear.weight"].astype(np.int64)
    red, green, blue = weight[:256], weight[256:512], weight[512:]
    greys = np.abs(red + green + blue).sum(axis=0)
    is_colour = 2 * greys < (np.abs(red) + np.abs(green) + np.abs(blue)).sum(axis=0)
    return Map(np.where(is_colour[:, None, None], single.n, several.n), several.exponent)


def chain_times(start: int, steps: int) -> list[int]:
    """The timesteps of the chain, the first one first."""
    k = min(steps, start + 1)
    return [int(np.rint((start + 1) * (k - i) / k)) - 1 for i in range(k)]


def sample(
    arrays: Arrays,
    mean: Map,
    log_scale: Map,
    levels: np.ndarray,
    times: list[int],
    seed: int,
) -> Map:
    """The last prediction of the chain through these timesteps."""
    alphas = arrays["alphas"]
    t = times[0]
    spread = arrays["spreads"][np.rint((real(log_scale) + 6) * 64).astype(np.int64)]
    v = np.maximum((1 - alphas[t]) - alphas[t] * spread, 0)
    y = np.sqrt(alphas[t]) * real(mean) + np.sqrt(v) * noise(mean.n.shape, seed)
    prediction = predict_at(arrays, y, mean, log_scale, levels, t)
    for u in times[1:]:
        p = real(prediction)
        e = (y - np.sqrt(alphas[t]) * p) / np.sqrt(1 - alphas[t])
        y = np.sqrt(alphas[u]) * p + np.sqrt(1 - alphas[u]) * e
        prediction = predict_at(arrays, y, mean, log_scale, levels, u)
        t = u
    return prediction


def predict_at(
    arrays: Arrays, y: np.ndarray, mean: Map, log_scale: Map, levels: np.ndarray, timestep: int
) -> Map:
    """The prediction from real numbers y at a timestep."""
    condition = embed(arrays, levels, np.full(levels.shape, timestep))
    return denoise(arrays, as_map(y), mean, log_scale, condition, "unet.texture_")


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers of variance 1, each from twelve of the generator's 16 bits."""
    count = 12 * int(np.prod(shape))
    words = np.random.Philox(key=[seed, 0]).random_raw(-(-count // 4))
    shifts = np.array([0, 16, 32, 48], np.uint64)
    parts = (words[:, None] >> shifts) & np.uint64(0xFFFF)
    twelves = parts.reshape(-1, 12).astype(np.int64).sum(axis=1)
    return ((2 * twelves - 12 * 65535) * 2.0**-17).reshape(shape)


def real(x: Map) -> np.ndarray:
    """The real numbers that a map stands for."""
    return x.n * np.exp2(-np.asarray(x.exponent, np.float64))


def as_map(x: np.ndarray) -> Map:
    return Map(np.clip(np.rint(x * 2.0**Y_EXPONENT), *WIDE), Y_EXPONENT)


# The networks: "From pixels to z" and "From symbols to pixels"


def pad_to_cells(rgb: np.ndarray) -> np.ndarray:
    """Repeat the last row and column of a picture [H, W, 3] up to whole cells."""
    height, width = rgb.shape[:2]
    return np.pad(rgb, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge")


def encode(arrays: Arrays, pixels: np.ndarray) -> Map:
    """Steps 1 and 2 of "From pixels to z": y of pixels 0..255."""
    fine, coarse = "vae.encoder.fine", "vae.encoder.coarse"
    h = sums(arrays, "vae.encoder.stem", unshuffle(pixels, 8))
    h = scale(h, stream_exponent(arrays, [fine], "vae.encoder.down"), PART)
    h = blocks(arrays, fine, h)
    h = convolve(arrays, "vae.encoder.down", h, stride=2)
    h = scale(h, stream_exponent(arrays, [coarse], "vae.encoder.head"), PART)
    h = blocks(arrays, coarse, h)
    linear = project(arrays, "vae.encoder.linear", Map(unshuffle(pixels, 16), 0))
    head = convolve(arrays, "vae.encoder.head", h)
    return add(scale(linear, Y_EXPONENT, WIDE), scale(head, Y_EXPONENT, PART))


def predict(arrays: Arrays, z_hat: Map, condition: np.ndarray) -> tuple[Map, Map]:
    """Step 1 of "From symbols to pixels": mean and log scale of y."""
    exponent = stream_exponent(arrays, ["h_s.blocks"], "h_s.mean", "h_s.log_scale")
    h = stem(arrays, "h_s.stem", z_hat, exponent)
    h = blocks(arrays, "h_s.blocks", h, condition)
    linear = scale(project(arrays, "h_s.linear", z_hat), Y_EXPONENT, WIDE)
    normalise = 1 / per_channel(arrays["y_std"])
    detail = scale(convolve(arrays, "h_s.mean", h), Y_EXPONENT, PART, normalise)
    log_scale = scale(convolve(arrays, "h_s.log_scale", h), Y_EXPONENT, LOG_SCALE)
    return add(linear, detail), log_scale


def denoise(
    arrays: Arrays,
    y: Map,
    mean: Map,
    log_scale: Map,
    condition: np.ndarray,
    last: str = "unet.",
) -> Map:
    """Step 2 of "From symbols to pixels": y_hat, with y at the entrance and this last part."""
    around = ["unet.before", "unet.after"]
    exponent = stream_exponent(arrays, around, "unet.down", "unet.head")
    deep_exponent = stream_exponent(arrays, ["unet.deep"], "unet.up")
    entry = Map(np.concatenate([y.n, mean.n, log_scale.n]), Y_EXPONENT)
    h = stem(arrays, "unet.stem", entry, exponent)
    h = blocks(arrays, "unet.before", h, condition)
    d = convolve(arrays, "unet.down", Map(pad_even(h.n), h.exponent), stride=2)
    d = blocks(arrays, "unet.deep", scale(d, deep_exponent, PART), condition[:, ::2, ::2])
    d = scale(convolve(arrays, "unet.up", d), exponent, PART)
    height, width = h.n.shape[1:]
    h = add(h, Map(shuffle(d.n, 2)[:, :height, :width], exponent))
    h = blocks(arrays, f"{last}after", h, condition)
    return add(mean, scale(convolve(arrays, f"{last}head", h), Y_EXPONENT, PART))


def decode(arrays: Arrays, y_hat: Map, texture: float = 0.0) -> np.ndarray:
    """Step 3 of "From symbols to pixels": whole cells of pixels [H, W, 3].

    The texture that belongs to several steps is added with that strength.
    """
    coarse, fine = "vae.decoder.coarse", "vae.decoder.fine"
    exponent = stream_exponent(arrays, [coarse], "vae.decoder.up")
    h = stem(arrays, "vae.decoder.stem", y_hat, exponent, per_channel(arrays["y_std"]))
    h = blocks(arrays, coarse, h)
    exponent = stream_exponent(arrays, [fine], "vae.decoder.head")
    h = scale(convolve(arrays, "vae.decoder.up", h), exponent, PART)
    h = blocks(arrays, fine, Map(shuffle(h.n, 2), exponent))
    linear = scale(project(arrays, "vae.decoder.linear", y_hat), PICTURE_EXPONENT, WIDE)
    residual = scale(convolve(arrays, "vae.decoder.head", h), PICTURE_EXPONENT, PART, 127.5)
    if texture != 0:
        g = convolve(arrays, "vae.decoder.texture_head", blocks(arrays, "vae.decoder.texture", h))
        residual = add(residual, scale(g, PICTURE_EXPONENT, PART, 127.5 * texture))
    picture = Map(shuffle(linear.n, 16) + shuffle(residual.n, 8), PICTURE_EXPONENT)
    return scale(picture, 0, (0, 255)).n.transpose(1, 2, 0).astype(np.uint8)


# Parts of the networks: "Grids"


def stem(arrays: Arrays, name: str, x: Map, exponent: int, factor: np.ndarray | float = 1.0) -> Map:
    """Begin a stream with a convolution of y or z, times a factor."""
    entry = scale(x, exponent_of(arrays, name), STEM_INPUT, factor)
    return scale(sums(arrays, name, entry.n), exponent, PART)


def blocks(arrays: Arrays, stack: str, h: Map, condition: np.ndarray | None = None) -> Map:
    """All residual blocks of a stack."""
    for name in block_names(arrays, stack):
        h = add(h, scale(branch(arrays, name, h, condition), h.exponent, PART))
    return h


def branch(arrays: Arrays, name: str, h: Map, condition: np.ndarray | None) -> Map:
    """What a residual block adds to its stream."""
    x = convolve(arrays, f"{name}.reduce", h)
    if condition is not None:
        x = modulate(arrays, name, x, condition)
    x = convolve(arrays, f"{name}.conv", x, BEHIND_RELU)
    return convolve(arrays, f"{name}.expand", x, BEHIND_RELU)


def modulate(arrays: Arrays, name: str, x: Map, condition: np.ndarray) -> Map:
    """Film with the gains and biases of each cell ("Modulation")."""
    e = exponent_of(arrays, f"{name}.conv")
    n = scale(x, 3 + e, MODULATED).n
    raw = np.tensordot(arrays[f"{name}.film.weight"].astype(np.float64), condition, axes=1)
    g, b = np.split(raw + per_channel(arrays[f"{name}.film.bias"]), 2)
    gains = np.clip(np.rint((g + 2**22) * 2.0**-13), -2047, 2047)
    biases = np.clip(np.rint(b * 2.0 ** (e + 12 - 22)), *WIDE)
    return Map(n * gains + biases, e + 12)


def embed(arrays: Arrays, levels: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
    """The condition c [64, h, w] of each cell, in units of 2^-10."""
    c = arrays["embedding"][levels].astype(np.float64)
    if times is not None:
        c += arrays["time"][times]
    return c.transpose(2, 0, 1)


def block_names(arrays: Arrays, stack: str) -> list[str]:
    names = []
    while f"{stack}.blocks.{len(names)}.reduce.weight" in arrays:
        names.append(f"{stack}.blocks.{len(names)}")
    return names


def stream_exponent(arrays: Arrays, stacks: list[str], *others: str) -> int:
    """The exponent of a stream that these stacks and convolutions read."""
    readers = [f"{block}.reduce" for stack in stacks for block in block_names(arrays, stack)]
    return 6 + max(exponent_of(arrays, name) for name in (*readers, *others))


def exponent_of(arrays: Arrays, name: str) -> int:
    return int(arrays[f"{name}.exponent"].item())


# "Steps"


def per_channel(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)[:, None, None]


def scale(x: Map, exponent: int, limits: Range, factor: np.ndarray | float = 1.0) -> Map:
    """Bring a map to another exponent, times a factor."""
    shift = np.exp2(exponent - np.asarray(x.exponent, np.float64))
    product = x.n.astype(np.float32) * np.asarray(factor * shift, np.float32)
    return Map(np.clip(np.rint(product), *limits).astype(np.float64), exponent)


def add(a: Map, b: Map) -> Map:
    return Map(a.n + b.n, a.exponent)


def convolve(
    arrays: Arrays, name: str, x: Map, limits: Range = OTHER_INPUT, stride: int = 1
) -> Map:
    """A convolution behind a Scale to the grid of its inputs."""
    return sums(arrays, name, scale(x, exponent_of(arrays, name), limits).n, stride)


def sums(arrays: Arrays, name: str, n: np.ndarray, stride: int = 1) -> Map:
    """The sums of a convolution, whose exponents are its shifts."""
    weight = arrays[f"{name}.weight"].astype(np.float64)
    k = weight.shape[2]
    height, width = n.shape[1] // stride, n.shape[2] // stride
    if k == 3:
        n = np.pad(n, ((0, 0), (1, 1), (1, 1)))
    total = per_channel(arrays[f"{name}.bias"])
    for i, j in np.ndindex(k, k):
        window = n[:, i::stride, j::stride][:, :height, :width]
        total = total + np.tensordot(weight[:, :, i, j], window, axes=1)
    return Map(total, per_channel(arrays[f"{name}.shift"]))


def project(arrays: Arrays, name: str, x: Map) -> Map:
    weight = arrays[f"{name}.weight"].astype(np.float64)
    total = np.tensordot(weight, x.n, axes=1) + per_channel(arrays[f"{name}.bias"])
    return Map(total.astype(np.float32).astype(np.float64), x.exponent + exponent_of(arrays, name))


def shuffle(n: np.ndarray, r: int) -> np.ndarray:
    channels, height, width = n.shape
    n = n.reshape(channels // r**2, r, r, height, width).transpose(0, 3, 1, 4, 2)
    return n.reshape(channels // r**2, height * r, width * r)


def unshuffle(n: np.ndarray, r: int) -> np.ndarray:
    channels, height, width = n.shape
    n = n.reshape(channels, height // r, r, width // r, r).transpose(0, 2, 4, 1, 3)
    return n.reshape(channels * r**2, height // r, width // r)


def pad_even(n: np.ndarray) -> np.ndarray:
    return np.pad(n, ((0, 0), (0, n.shape[1] % 2), (0, n.shape[2] % 2)))
