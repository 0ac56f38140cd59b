"""Paints the sample photo of the tests and the demo: a mountain lake, from noise and geometry.

    python scripts/make_sample.py tests/samples/lake.png [WIDTH HEIGHT]

Pictures of our own making have no licence to track and hold no one's holiday.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image


def noise(
    rng: np.random.Generator,
    height: int,
    width: int,
    cell: float,
    octaves: int = 6,
    roughness: float = 0.5,
) -> np.ndarray:
    """Fractal value noise in about -1..1, [height, width]; ``cell`` is its coarsest period."""
    total = np.zeros((height, width))
    amplitude = 1.0
    for _ in range(octaves):
        rows, columns = int(height / cell) + 3, int(width / cell) + 3
        grid = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
        big = grid.resize((int(columns * cell) + 1, int(rows * cell) + 1), Image.Resampling.BICUBIC)
        total += amplitude * np.asarray(big)[:height, :width]
        amplitude, cell = amplitude * roughness, max(1.0, cell / 2)
    return total / 2


def paint(width: int, height: int, seed: int = 7) -> Image.Image:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    sky_top, sky_low = np.array([0.25, 0.45, 0.78]), np.array([0.93, 0.82, 0.70])
    blend = np.clip(y / 0.55, 0, 1)[..., None] ** 1.3
    picture = sky_top * (1 - blend) + sky_low * blend
    clouds = np.clip(noise(rng, height, width, height / 3) * 1.6 - 0.15, 0, 1) * (1 - y) ** 2
    picture += clouds[..., None] * np.array([0.55, 0.5, 0.48])
    sun = np.exp(-(((x - 1.1) ** 2 + (y - 0.25) ** 2) / 0.01))
    picture += sun[..., None] * np.array([0.7, 0.55, 0.3])

    shore = 0.62
    for distance in (1.0, 0.7, 0.42, 0.2):
        ridge = noise(rng, 1, width, height * 0.6 * (0.4 + distance), 8, 0.52)[0]
        skyline = shore - 0.10 - 0.22 * distance * (0.6 + ridge)
        inside = (y > skyline[None, :]) & (y < shore)
        rock = noise(rng, height, width, height / 12, 7, 0.7)
        slope = np.gradient(rock, axis=1) * height / 90
        snow = np.clip((0.36 - y) * 9 + rock * 2.2, 0, 1)[..., None] * distance
        colour = np.array([0.20, 0.26, 0.20]) + 0.16 * (rock + slope)[..., None]
        colour = colour * (1 - snow) + np.array([0.92, 0.94, 0.98]) * snow * (
            0.85 + slope[..., None]
        )
        haze = 0.62 * distance
        colour = colour * (1 - haze) + np.array([0.66, 0.71, 0.78]) * haze
        picture = np.where(inside[..., None], colour, picture)

    water = y >= shore
    mirror = np.clip(((2 * shore - y) * height).astype(int), 0, height - 1)
    ripple = (noise(rng, height, width, height / 40, 4, 0.6) * 14 * (y - shore + 0.03)).astype(int)
    columns = np.clip((x * height).astype(int) + ripple, 0, width - 1)
    reflected = picture[mirror, columns] * np.array([0.62, 0.72, 0.78])
    glints = np.clip(noise(rng, height, width, 10, 3, 0.8) - 0.75, 0, 1)[..., None] * 0.9
    picture = np.where(water[..., None], reflected + glints, picture)

    for i in range(26):
        foot, size = rng.uniform(0.9, 1.02), rng.uniform(0.12, 0.34)
        centre = rng.uniform(0, width / height) if i > 5 else rng.uniform(0, 0.3)
        rise = (foot - y) / size
        half = 0.16 * size * (1 - rise) * (1 + 0.55 * np.sin(rise * 60 + i)) + 0.01 * size
        needles = noise(rng, height, width, 6, 3, 0.8)
        tree = (rise > 0) & (rise < 1) & (np.abs(x - centre) < half * (1 + 0.5 * needles))
        shade = np.array([0.07, 0.13, 0.08]) * (1 + 0.9 * needles[..., None]) + 0.03
        picture = np.where(tree[..., None], shade, picture)

    picture += rng.normal(0, 0.008, picture.shape)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))


if __name__ == "__main__":
    size = [int(v) for v in sys.argv[2:4]] or [768, 512]
    paint(*size).save(sys.argv[1], optimize=True)
