"""The codec agrees with what formats/networks-1.md says, as reference_networks reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference_networks import analyse, synthesise
from small_networks import integer_bundle

from bkcodec.codec import Codec
from bkcodec.container import container_from_bytes, container_to_bytes
from bkcodec.image.reading import picture_from_image
from bkcodec.inspection import read_symbols
from bkcodec.options import EncodeOptions


@pytest.fixture(scope="module")
def codec(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    path: Path = tmp_path_factory.mktemp("bundle") / "integers.safetensors"
    return Codec(integer_bundle(lake, path), "cpu")


def crop(lake: Image.Image, size: tuple[int, int]) -> Image.Image:
    return lake.crop((200, 180, 200 + size[0], 180 + size[1]))


def reference_pixels(codec: Codec, data: bytes) -> np.ndarray:
    container = container_from_bytes(data)
    levels, symbols = read_symbols(container, codec.bundle)
    size = container.width, container.height
    return synthesise(codec.bundle.integers, symbols, levels, size, container.timestep)


def assert_same_pixels(codec: Codec, data: bytes) -> None:
    decoded = np.asarray(codec.decode(data))
    expected = reference_pixels(codec, data)
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
    rows, columns = (-(-side // 64) for side in reversed(size))
    offsets = np.resize(np.array([20, -30, 7], np.int16), (rows, columns))
    picture = picture_from_image(crop(lake, size))
    data = codec.encode_picture(picture, EncodeOptions(), offsets).data
    levels = np.asarray(read_symbols(container_from_bytes(data), codec.bundle)[0])
    assert len(np.unique(levels)) == min(rows * columns, 3)
    assert_same_pixels(codec, data)


@pytest.mark.parametrize("timestep", [0, 123, 999])
def test_same_pixels_from_a_timestep(codec: Codec, lake: Image.Image, timestep: int) -> None:
    data = codec.encode(crop(lake, (130, 87)), EncodeOptions(quality=60))
    container = container_from_bytes(data)
    chosen = container_to_bytes(replace(container, timestep=timestep))
    assert container_from_bytes(chosen).timestep == timestep
    assert not np.array_equal(reference_pixels(codec, data), reference_pixels(codec, chosen))
    assert_same_pixels(codec, chosen)
