"""The codec agrees with what formats/networks-1.md says, as reference_networks reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference_networks import analyse, synthesise
from safetensors import safe_open
from safetensors.numpy import save_file
from small_networks import integer_bundle

from bkcodec.codec import Codec
from bkcodec.container import container_from_bytes, container_to_bytes
from bkcodec.image.reading import picture_from_image
from bkcodec.inspection import read_symbols
from bkcodec.options import DecodeOptions, EncodeOptions

PLAIN = DecodeOptions(steps=1, realism=1.0)


@pytest.fixture(scope="module")
def codec(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    path: Path = tmp_path_factory.mktemp("bundle") / "integers.safetensors"
    return Codec(integer_bundle(lake, path), "cpu")


@pytest.fixture(scope="module")
def varied(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """That of `codec` is the same log scale everywhere; this one's is not."""
    path = integer_bundle(lake, tmp_path_factory.mktemp("varied") / "integers.safetensors")
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weight, bias, shift = (f"int.h_s.log_scale.{part}" for part in ("weight", "bias", "shift"))
    random = np.random.default_rng(0).integers(-63, 64, arrays[weight].shape)
    arrays[weight] = random.astype(np.int8)
    arrays[bias] = arrays[bias] // 2**5
    arrays[shift] = arrays[shift] - np.int8(5)
    save_file(arrays, path.with_name("varied.safetensors"), metadata)
    return Codec(path.with_name("varied.safetensors"), "cpu")


def crop(lake: Image.Image, size: tuple[int, int]) -> Image.Image:
    return lake.crop((200, 180, 200 + size[0], 180 + size[1]))


def with_hints(data: bytes, **hints: int) -> bytes:
    container = container_from_bytes(
        container_to_bytes(replace(container_from_bytes(data), **hints))
    )
    assert all(getattr(container, name) == value for name, value in hints.items())
    return container_to_bytes(container)


def with_level_map(codec: Codec, image: Image.Image) -> bytes:
    rows, columns = (-(-side // 64) for side in reversed(image.size))
    offsets = np.resize(np.array([20, -30, 7], np.int16), (rows, columns))
    data = codec.encode_picture(picture_from_image(image), EncodeOptions(), offsets).data
    levels = np.asarray(read_symbols(container_from_bytes(data), codec.bundle)[0])
    assert len(np.unique(levels)) == min(rows * columns, 3)
    return data


def reference_pixels(codec: Codec, data: bytes, options: DecodeOptions = PLAIN) -> np.ndarray:
    container = container_from_bytes(data)
    levels, symbols = read_symbols(container, codec.bundle)
    return synthesise(
        codec.bundle.integers,
        symbols,
        levels,
        (container.width, container.height),
        container.timestep,
        options.steps,
        options.realism_or(1.0),
        container.seed if options.seed is None else options.seed,
    )


def assert_same_pixels(codec: Codec, data: bytes, options: DecodeOptions = PLAIN) -> None:
    decoded = np.asarray(codec.decode(data, options))
    expected = reference_pixels(codec, data, options)
    assert decoded.dtype == expected.dtype == np.uint8
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize("size", [(130, 87), (16, 16)])
def test_same_z(codec: Codec, lake: Image.Image, size: tuple[int, int]) -> None:
    rgb = np.asarray(crop(lake, size))
    expected = codec.encoder.analyse(rgb, 0)[1]
    assert np.array_equal(analyse(codec.bundle.integers, rgb), expected)


@pytest.mark.parametrize("quality", [20, 60, 100])
def test_same_pixels(codec: Codec, lake: Image.Image, quality: int) -> None:
    data = codec.encode(crop(lake, (130, 87)), EncodeOptions(quality=quality))
    assert_same_pixels(codec, data)


@pytest.mark.parametrize("size", [(130, 87), (144, 80), (96, 128), (1, 33)])
def test_same_pixels_with_a_level_map(
    codec: Codec, lake: Image.Image, size: tuple[int, int]
) -> None:
    data = with_level_map(codec, crop(lake, size))
    assert_same_pixels(codec, data)


@pytest.mark.parametrize("timestep", [0, 123, 999])
def test_same_pixels_from_a_timestep(codec: Codec, lake: Image.Image, timestep: int) -> None:
    data = codec.encode(crop(lake, (130, 87)), EncodeOptions(quality=60))
    chosen = with_hints(data, timestep=timestep)
    assert not np.array_equal(reference_pixels(codec, data), reference_pixels(codec, chosen))
    assert_same_pixels(codec, chosen)


@pytest.mark.parametrize(
    ("steps", "realism", "seed"),
    [
        *((1, 0.4, None), (1, 0.0, None), (2, 1.0, None), (2, 0.0, 3), (3, 1.0, None)),
        *((3, 0.1, 2**31 - 1), (4, 0.6, 7), (5, 0.7, 0), (50, 1.0, 1)),
    ],
)
def test_same_pixels_of_several_steps(
    codec: Codec, lake: Image.Image, steps: int, realism: float, seed: int | None
) -> None:
    data = codec.encode(crop(lake, (130, 87)), EncodeOptions(quality=60))
    options = DecodeOptions(steps=steps, realism=realism, seed=seed)
    assert not np.array_equal(reference_pixels(codec, data), reference_pixels(codec, data, options))
    assert_same_pixels(codec, data, options)


@pytest.mark.parametrize("quality", [0, 20, 100])
def test_same_pixels_of_several_steps_at_a_quality(
    codec: Codec, lake: Image.Image, quality: int
) -> None:
    data = codec.encode(crop(lake, (96, 128)), EncodeOptions(quality=quality))
    assert_same_pixels(codec, data, DecodeOptions(steps=3, realism=0.9, seed=5))


@pytest.mark.parametrize(("steps", "realism"), [(1, 0.4), (2, 1.0), (3, 0.6)])
@pytest.mark.parametrize("size", [(130, 87), (1, 33)])
def test_same_pixels_of_several_steps_with_a_level_map(
    codec: Codec, lake: Image.Image, size: tuple[int, int], steps: int, realism: float
) -> None:
    data = with_level_map(codec, crop(lake, size))
    assert_same_pixels(codec, data, DecodeOptions(steps=steps, realism=realism, seed=11))


@pytest.mark.parametrize(
    ("timestep", "steps"), [(0, 2), (1, 2), (2, 4), (4, 3), (123, 4), (999, 1), (999, 4)]
)
def test_same_pixels_of_several_steps_from_a_timestep(
    codec: Codec, lake: Image.Image, timestep: int, steps: int
) -> None:
    data = codec.encode(crop(lake, (130, 87)), EncodeOptions(quality=60))
    chosen = with_hints(data, timestep=timestep)
    assert_same_pixels(codec, chosen, DecodeOptions(steps=steps, realism=0.8))


def test_same_pixels_with_the_seed_of_the_file(codec: Codec, lake: Image.Image) -> None:
    data = codec.encode(crop(lake, (130, 87)), EncodeOptions(quality=60))
    seeded, options = with_hints(data, seed=12345), DecodeOptions(steps=3)
    first, second = (reference_pixels(codec, each, options) for each in (data, seeded))
    assert not np.array_equal(first, second)
    assert_same_pixels(codec, seeded, options)
    assert_same_pixels(codec, seeded, replace(options, seed=0))


@pytest.mark.parametrize("timestep", [None, 200, 999])
@pytest.mark.parametrize(("steps", "realism"), [(1, 0.4), (2, 0.6), (4, 1.0)])
def test_same_pixels_with_a_log_scale_that_varies(
    varied: Codec, lake: Image.Image, steps: int, realism: float, timestep: int | None
) -> None:
    data = varied.encode(crop(lake, (130, 87)), EncodeOptions(quality=60))
    chosen = data if timestep is None else with_hints(data, timestep=timestep)
    assert_same_pixels(varied, chosen, DecodeOptions(steps=steps, realism=realism, seed=1))
