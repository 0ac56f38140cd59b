"""Integer networks: the same integers from every backend, close to the floats they were made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import model_on_grids

from bkcodec.engine.bounds import check
from bkcodec.engine.conditions import Conditions
from bkcodec.engine.networks import (
    BIAS_LIMIT,
    GAIN_LIMIT,
    LATENT_LIMIT,
    Z_EXPONENT,
    Arrays,
    analysis,
    synthesis,
)
from bkcodec.engine.onnx import OnnxNetwork
from bkcodec.engine.program import Add, Conv, Program, Project, Scale
from bkcodec.engine.reference import ReferenceNetwork
from bkcodec.engine.torch import TorchNetwork
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.denoising import Denoising
from bkcodec.train.integers import integer_arrays

FILM = (GAIN_LIMIT, BIAS_LIMIT)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(lake: Image.Image) -> BkSdmCompression:
    return model_on_grids(lake)


@pytest.fixture(scope="module")
def arrays(model: BkSdmCompression) -> Arrays:
    return integer_arrays(model)


def pixels_of(lake: Image.Image, rows: int, columns: int) -> np.ndarray:
    cut = np.asarray(lake)[100 : 100 + 16 * rows, 200 : 200 + 16 * columns]
    return cut.transpose(2, 0, 1)


def every_backend(program: Program) -> list[Any]:
    return [
        ReferenceNetwork(program),
        OnnxNetwork(program, threads=1),
        OnnxNetwork(program, threads=2),
        TorchNetwork(program, CPU),
    ]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 6), (5, 3), (7, 1)])
@pytest.mark.parametrize("level", [0, 120, "map"])
def test_all_backends_agree(
    arrays: Arrays, lake: Image.Image, rows: int, columns: int, level: int | str
) -> None:
    pixels = pixels_of(lake, rows, columns)
    results = [net.run({"pixels": pixels})[0] for net in every_backend(analysis(arrays))]
    assert all(np.array_equal(results[0], other) for other in results[1:])
    levels: Any = level
    if level == "map":
        blocks = np.random.default_rng(rows).integers(0, 201, (2, 2)).astype(np.uint8)
        levels = blocks.repeat(4, 0).repeat(4, 1)[:rows, :columns]
    maps = {"z_hat": results[0].clip(-LATENT_LIMIT, LATENT_LIMIT)}
    maps |= Conditions(arrays).maps(levels)
    pictures = [net.run(maps)[0] for net in every_backend(synthesis(arrays))]
    assert pictures[0].shape == (3, 16 * rows, 16 * columns)
    assert 0 <= pictures[0].min() < pictures[0].max() <= 255
    assert all(np.array_equal(pictures[0], other) for other in pictures[1:])


def test_close_to_the_networks_that_they_were_made_of(
    model: BkSdmCompression, arrays: Arrays, lake: Image.Image
) -> None:
    pixels = pixels_of(lake, 8, 10)
    (z, _) = ReferenceNetwork(analysis(arrays)).run({"pixels": pixels})
    x = torch.from_numpy(pixels / 255)[None].float()
    position = torch.tensor([0.5])
    with torch.no_grad():
        expected = model.analyse(x)[1]
        step = model.quantiser.step(position)
        symbols = (expected / step).round()
        y_hat = model.sample(symbols, position, Denoising())
        picture = model.reconstruct(y_hat, (128, 160))[0].clamp(0, 1).mul(255).round().numpy()
    assert np.abs(z * 2.0**-Z_EXPONENT - expected[0].numpy()).max() < 0.1 * step.min()
    z_hat = symbols[0].numpy() * arrays["dequantise"][100][:, None, None]
    maps = {"z_hat": z_hat.clip(-LATENT_LIMIT, LATENT_LIMIT), **Conditions(arrays).maps(100)}
    (decoded,) = ReferenceNetwork(synthesis(arrays)).run(maps)
    difference = np.abs(decoded - picture)
    assert difference.max() <= 2 and difference.mean() < 0.1


def test_numbers_stay_where_they_are_exact(arrays: Arrays) -> None:
    check(analysis(arrays), 255, FILM)
    check(synthesis(arrays), LATENT_LIMIT, FILM)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vae.encoder.stem.weight", lambda a: np.full_like(a, 64)),
        ("vae.encoder.stem.bias", lambda a: np.full_like(a, 2**24)),
        ("vae.encoder.linear.weight", lambda a: a.astype(np.int64) * 2**23),
        ("h_a.head.shift", lambda a: np.full_like(a, 127)),
    ],
)
def test_arrays_out_of_range_are_refused(arrays: Arrays, name: str, change: Any) -> None:
    changed = arrays | {name: change(arrays[name])}
    if name.endswith("shift"):  # no harm: only the result is nonsense
        check(analysis(changed), 255, FILM)
        return
    with pytest.raises(ValueError, match="could reach"):
        check(analysis(changed), 255, FILM)


def test_sums_of_many_streams_are_refused() -> None:
    program = Program("sums", ("x",))
    value = program.add(Scale(np.float32([1]), -(2**20), 2**20), 0)
    for _ in range(16):
        value = program.add(Add(), value, value)
    with pytest.raises(ValueError, match=r"step 4 \(Add\) could reach"):
        check(program, 10, FILM)


def test_halves_go_to_the_even_neighbour_everywhere() -> None:
    """Ties, negative ones too, through each kind of rounding; and zero padding of signed bytes."""
    weight = np.zeros((2, 2, 3, 3), np.int8)
    weight[0, 0], weight[1, 1, 1, 1] = 1, -3
    conv = Conv(weight, np.array([2, -5], np.int32), 1, -128, 127)
    program = Program("ties", ("x",))
    small = program.add(Scale(np.float32([0.5]), -128, 127), 0)
    sums = program.add(conv, small)
    wide = program.add(Scale(np.float32([0.5, 0.25]), -1000, 1000), sums)
    again = program.add(Conv(weight, np.array([2, -5], np.int32), 1, -128, 127), small)
    byte = program.add(Scale(np.float32([0.5, 0.125]), 0, 255), again)
    kept = program.add(Scale(np.float32([3.0]), -500, 500), byte)
    projected = program.add(Project(np.array([[3.0, 1.0]]), np.array([1.0])), wide)
    last = program.add(Scale(np.float32([0.1]), -(2**22), 2**22), projected)
    many = program.add(Project(np.array([[2.0**22 + 1, 7.0]]), np.array([3.0])), wide)
    rounded = program.add(Scale(np.float32([2**-9 / 3]), -(2**22), 2**22), many)
    program.outputs = (wide, kept, last, rounded)
    x = np.arange(-60, 60).reshape(2, 6, 10)
    results = [net.run({"x": x}) for net in every_backend(program)]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)
    row = results[0][0][1, 0]
    assert row.tolist() == np.rint(0.25 * (-3 * np.rint(x[1, 0] / 2) - 5)).tolist()


def test_a_float_model_has_no_integers(model: BkSdmCompression) -> None:
    plain = BkSdmCompression(replace(model.config, N=16))
    with pytest.raises(ValueError, match="without a grid"):
        integer_arrays(plain)
