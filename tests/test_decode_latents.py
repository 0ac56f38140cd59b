from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_networks import integer_bundle

import bkcodec
from bkcodec.codec import Codec
from bkcodec.coding.integers import IntegerCoder
from bkcodec.container import container_from_bytes
from bkcodec.engine.networks import Y_EXPONENT
from bkcodec.inspection import read_symbols
from bkcodec.options import DecodeOptions


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(),
        DecodeOptions(realism=0.5),
        DecodeOptions(steps=3, seed=5),
        DecodeOptions(tile=64),
    ],
)
def test_they_are_what_the_picture_is_made_of(
    options: DecodeOptions, bkc: bytes, codec: Codec, small: Image.Image
) -> None:
    latents = bkcodec.decode_latents(bkc, options)
    assert latents.dtype == np.float32 and latents.shape == (224, 6, 9)
    assert isinstance(codec.coder, IntegerCoder)
    y_hat = np.rint(latents * 2.0**Y_EXPONENT).astype(np.float32)
    texture = options.realism_or(1.0) if options.steps > 1 else 0.0
    pixels = codec.coder.runtime.picture(y_hat, texture)[: small.height, : small.width]
    assert np.array_equal(pixels, np.asarray(bkcodec.decode(bkc, options)))


def test_sizes_are_about_one(lake: Image.Image) -> None:
    latents = bkcodec.decode_latents(bkcodec.encode(lake))
    assert 0.3 < latents.std() < 2 and (abs(latents) < 3).mean() > 0.9


def test_networks_in_floating_point_give_nearly_the_same(bkc: bytes, codec: Codec) -> None:
    container = container_from_bytes(bkc, DecodeOptions().limits)
    levels, symbols = read_symbols(container, codec.bundle)
    for options in (DecodeOptions(), DecodeOptions(realism=0.5), DecodeOptions(tile=64)):
        size = container.width, container.height
        floats = codec._floats().latents(symbols, levels, size, options, 0, None)
        assert floats.dtype == np.float32
        assert np.abs(floats - bkcodec.decode_latents(bkc, options)).mean() < 0.01
    assert isinstance(codec.coder, IntegerCoder)
    euler = DecodeOptions(steps=3, scheduler="euler")
    assert codec.coder.latents(symbols, levels, size, euler, 0, None).shape == floats.shape


def test_they_need_the_bundle_of_the_file(lake: Image.Image, tmp_path: Path) -> None:
    path = integer_bundle(lake, tmp_path / "b.safetensors")
    data = Codec(path, "cpu").encode(lake.crop((0, 0, 100, 60)))
    with pytest.raises(bkcodec.UnsupportedError):
        bkcodec.decode_latents(data)
    latents = bkcodec.decode_latents(data, DecodeOptions(model_path=str(path)))
    assert latents.shape == (32, 4, 7)
    (tmp_path / "photo.bkc").write_bytes(data)
    with pytest.raises(bkcodec.FormatError):
        bkcodec.decode_latents(data[:-1])
    again = bkcodec.decode_latents(tmp_path / "photo.bkc", DecodeOptions(model_path=str(path)))
    assert np.array_equal(again, latents)
