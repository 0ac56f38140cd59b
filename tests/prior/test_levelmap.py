"""Level maps: what is written is read, what cannot be is refused, and quality follows the map."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import reference_decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

import bkcodec
from bkcodec.codec import Codec
from bkcodec.container import container_from_bytes, container_to_bytes
from bkcodec.errors import FormatError, UsageError
from bkcodec.image.reading import picture_from_image
from bkcodec.inspection import read_symbols
from bkcodec.options import Region
from bkcodec.prior.levelmap import cell_levels, map_shape, read_map, write_map

OBJECT = np.zeros((7, 9), np.int16)
OBJECT[2:5, 3:7] = 40


SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=9)


@given(arrays(np.int16, SHAPES, elements=st.integers(0, 200)))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(levels: np.ndarray) -> None:
    rows, columns = (4 * n - 1 for n in levels.shape)
    for level in (0, 100, 200):
        offsets = levels - level
        cells = read_map(write_map(offsets), level, rows, columns)
        assert np.array_equal(cells, cell_levels(level, offsets, rows, columns))
        assert np.array_equal(cells[::4, ::4], levels)


def test_maps_are_small() -> None:
    assert len(write_map(np.zeros((48, 64), np.int16))) <= 8
    assert len(write_map(OBJECT)) <= 24
    gradient = np.arange(64, dtype=np.int16)[None].repeat(48, axis=0)
    assert len(write_map(gradient)) <= 64


@given(st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4]))
@settings(max_examples=200, deadline=None)
def test_any_words_are_a_map_or_an_error(data: bytes) -> None:
    try:
        cells = read_map(data, 60, 9, 14)
    except FormatError:
        return
    assert cells.shape == (9, 14) and cells.max() <= 200


def test_the_reference_decoder_agrees() -> None:
    rng = np.random.default_rng(1)
    for offsets in (OBJECT, rng.integers(-60, 90, (5, 8)).astype(np.int16)):
        rows, columns = (4 * n - 2 for n in offsets.shape)
        read = reference_decoder.decode_levels(write_map(offsets), 80, (rows, columns))
        assert np.array_equal(read, cell_levels(80, offsets, rows, columns))


def test_offsets_out_of_range_are_refused() -> None:
    payload = write_map(OBJECT)
    assert read_map(payload, 160, 28, 36).max() == 200
    for level in (161, 200):
        with pytest.raises(FormatError, match="says level"):
            read_map(payload, level, 28, 36)
    with pytest.raises(FormatError):  # a map of fewer blocks: words are left over
        read_map(write_map(np.arange(-60, 60, dtype=np.int16).reshape(10, 12) % 37), 60, 4, 4)


def test_an_encoder_is_told_what_is_wrong_with_a_map(codec: Codec, lake: Image.Image) -> None:
    picture = picture_from_image(lake.crop((0, 0, 200, 100)))
    shape = map_shape(7, 13)
    assert shape == (2, 4)
    for options, offsets, problem in (
        ({"quality": 40}, np.zeros((3, 4), np.int16), "blocks"),
        ({"quality": 40}, np.full(shape, 121, np.int16), "reaches"),
        ({"quality": 40}, np.full(shape, -81, np.int16), "reaches"),
        ({"target_bpp": 0.2}, np.zeros((3, 4), np.int16), "blocks"),
        ({"regions": (Region(0, 0, 9, 9),)}, np.zeros(shape, np.int16), "without another map"),
    ):
        with pytest.raises(UsageError, match=problem):
            codec.encode_picture(picture, bkcodec.EncodeOptions(**options), offsets)


def test_a_map_of_another_size_has_no_levels() -> None:
    with pytest.raises(UsageError, match="blocks"):
        cell_levels(80, np.zeros((3, 4), np.int16), 7, 13)


def test_a_map_goes_along_with_a_size(codec: Codec, lake: Image.Image) -> None:
    """The search moves the base level; what would leave the scale is at its end."""
    picture = picture_from_image(lake.crop((0, 0, 200, 100)))
    offsets = np.zeros(map_shape(7, 13), np.int16)
    offsets[:, 2:] = -200
    encoded = codec.encode_picture(picture, bkcodec.EncodeOptions(target_size=300), offsets)
    levels, _ = read_symbols(encoded.container, codec.bundle)
    base = encoded.container.level
    assert len(encoded) <= 300 and 0 < base < 200
    assert isinstance(levels, np.ndarray) and set(levels.flat) == {base, 0}


def mapped(codec: Codec, image: Image.Image, quality: float, offsets: np.ndarray) -> bytes:
    options = bkcodec.EncodeOptions(quality=quality)
    return codec.encode_picture(picture_from_image(image), options, offsets).data


@pytest.mark.parametrize("size", [(200, 16), (16, 100), (200, 40), (33, 12), (16, 16), (31, 47)])
@pytest.mark.parametrize("steps", [1, 2])
def test_one_row_of_cells_and_odd_sizes(
    codec: Codec, lake: Image.Image, size: tuple[int, int], steps: int
) -> None:
    image = lake.crop((300, 200, 300 + size[0], 200 + size[1]))
    rows, columns = (-(-n // 16) for n in reversed(size))
    plain = codec.encode(image, bkcodec.EncodeOptions(quality=60))
    even = mapped(codec, image, 40, np.full(map_shape(rows, columns), 40, np.int16))
    options = bkcodec.DecodeOptions(steps=steps)
    a, b = (np.asarray(codec.decode(data, options), np.int64) for data in (plain, even))
    if steps == 1:  # a chain of several starts at the file's level
        assert np.abs(a - b).max() <= 1


def test_nothing_is_written_where_the_level_is_one(codec: Codec, lake: Image.Image) -> None:
    image = lake.crop((0, 0, 128, 64))
    data = mapped(codec, image, 40, np.zeros((1, 2), np.int16))
    assert data == codec.encode(image, bkcodec.EncodeOptions(quality=40))


def test_a_broken_map_is_not_blamed_on_z(codec: Codec, lake: Image.Image) -> None:
    container = container_from_bytes(mapped(codec, lake.crop((0, 0, 576, 400)), 40, OBJECT))
    with pytest.raises(FormatError, match="levels section"):
        codec.decode(container_to_bytes(replace(container, level_map=b"12345")))


def test_an_even_map_is_a_level(codec: Codec, lake: Image.Image) -> None:
    image = lake.crop((100, 100, 420, 340))
    plain = codec.encode(image, bkcodec.EncodeOptions(quality=45))
    even = mapped(codec, image, 30, np.full(map_shape(15, 20), 30, np.int16))
    assert container_from_bytes(plain).z == container_from_bytes(even).z
    a, b = (np.asarray(codec.decode(data), np.int64) for data in (plain, even))
    assert np.abs(a - b).max() <= 1  # modulated for all cells at once, or cell by cell


def test_quality_follows_the_map(codec: Codec, lake: Image.Image) -> None:
    image = lake.crop((0, 0, 512, 384))
    offsets = np.zeros(map_shape(24, 32), np.int16)
    offsets[:, 4:] = 120
    data = mapped(codec, image, 10, offsets)
    low, high = (
        codec.encode(image, bkcodec.EncodeOptions(quality=quality)) for quality in (10, 70)
    )
    assert len(low) < len(data) < len(high)
    original = np.asarray(image, np.float64)

    def errors(data: bytes) -> tuple[float, float]:
        error = np.square(np.asarray(codec.decode(data)) - original)
        return float(error[:, :192].mean()), float(error[:, 320:].mean())

    (left, right), bad, good = errors(data), errors(low), errors(high)
    assert abs(left / bad[0] - 1) < 0.05 and abs(right / good[1] - 1) < 0.05


def test_tiles_and_several_steps_with_a_map(codec: Codec, lake: Image.Image) -> None:
    offsets = np.zeros(map_shape(32, 48), np.int16)
    offsets[2:6, 1:9] = 60
    data = mapped(codec, lake, 40, offsets)
    for steps in (1, 2):
        whole, tiled = (
            np.asarray(codec.decode(data, bkcodec.DecodeOptions(steps=steps, tile=tile)), np.int64)
            for tile in (0, 192)
        )
        assert np.abs(whole - tiled).max() <= 1


def test_files_with_a_map(codec: Codec, lake: Image.Image) -> None:
    data = mapped(codec, lake.crop((0, 0, 576, 400)), 40, OBJECT)
    values = bkcodec.info(data, verify=True)
    assert 0 < values["level_map_bytes"] <= 24
    container = container_from_bytes(data)
    for broken in (
        replace(container, level=190),  # offsets out of range
        replace(container, width=64),  # a map of another size
        replace(container, level_map=container.level_map + b"\1" * 8),
        replace(container, level_map=container.level_map[:-1]),
    ):
        with pytest.raises(FormatError):
            codec.decode(container_to_bytes(broken))
    twice = data[:-4] + bytes([2, 0])
    with pytest.raises(FormatError, match="twice"):
        container_from_bytes(twice + struct.pack("<I", zlib.crc32(twice)))
