"""Files written band by band are what Pillow would read, however the bands are cut."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from conftest import camera_exif, exif_with
from PIL import Image, TiffImagePlugin

from bkcodec.errors import InputError
from bkcodec.image import picture, writing
from bkcodec.image.picture import (
    CHANNELS,
    Picture,
    Rows,
    image_from_rows,
    rows_from_picture,
)
from bkcodec.image.reading import picture_from_image
from bkcodec.image.writing import save_rows, write_tiff
from bkcodec.metadata import Metadata

SHAPES = {"L": (61, 47), "LA": (1, 300), "RGB": (123, 45), "RGBA": (64, 1)}


def pixels_of(mode: str) -> np.ndarray:
    """Smooth and rough parts, so that all of PNG's filters are used."""
    height, width = SHAPES[mode]
    rng = np.random.default_rng(height)
    smooth = np.add.outer(np.arange(height), 2 * np.arange(width))[..., None]
    noise = rng.integers(0, 256, (height, width, CHANNELS[mode]))
    return np.where(np.arange(height)[:, None, None] % 20 < 10, smooth, noise).astype(np.uint8)


def banded(pixels: np.ndarray, heights: tuple[int, ...]) -> Iterator[np.ndarray]:
    top, turn = 0, 0
    while top < len(pixels):
        n = heights[turn % len(heights)]
        yield pixels[top : top + n]
        top, turn = top + n, turn + 1


def rows_of(pixels: np.ndarray, mode: str, heights: tuple[int, ...]) -> Rows:
    return Rows(pixels.shape[1], len(pixels), mode, banded(pixels, heights), Metadata(b"profile"))


def few_rows(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    """Have bands of so few bytes written at once."""
    for module in (picture, writing):
        monkeypatch.setattr(module, "BAND_BYTES", n_bytes)


@pytest.mark.parametrize("heights", [(1000,), (1,), (3, 1, 7)])
@pytest.mark.parametrize("mode", list(SHAPES))
@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_pixels_come_back(
    extension: str, mode: str, heights: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_rows(monkeypatch, 500)  # many chunks and strips
    pixels, out = pixels_of(mode), io.BytesIO()
    save_rows(rows_of(pixels, mode, heights), out, extension)
    with Image.open(io.BytesIO(out.getvalue())) as image:
        assert image.mode == mode and image.info["icc_profile"] == b"profile"
        image.load()
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("effort", [1, 2, 6, 9])
def test_png_efforts_give_the_same_pixels(effort: int, lake: Image.Image) -> None:
    pixels = np.asarray(lake)[:200]
    sizes = []
    for level in (effort, 9):
        out = io.BytesIO()
        save_rows(rows_of(pixels, "RGB", (64,)), out, "png", level)
        sizes.append(len(out.getvalue()))
        with Image.open(out) as image:
            assert np.array_equal(np.asarray(image), pixels)
    assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize("extension", ["ppm", "png", "tiff", "jpg", "webp"])
def test_bands_do_not_matter(extension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few_rows(monkeypatch, 700)
    pixels, files = pixels_of("RGB"), set()
    for heights in ((1000,), (2, 5)):
        out = io.BytesIO()
        save_rows(rows_of(pixels, "RGB", heights), out, extension)
        with Image.open(io.BytesIO(out.getvalue())) as image:
            files.add(image.tobytes())
    assert len(files) == 1


def test_a_photo_is_no_larger_than_pillows(lake: Image.Image) -> None:
    pixels, ours, theirs = np.asarray(lake), io.BytesIO(), io.BytesIO()
    save_rows(Rows(lake.width, lake.height, "RGB", iter([pixels])), ours, "png")
    lake.save(theirs, "PNG")
    assert ours.tell() < 1.02 * theirs.tell()


def test_a_tiff_beyond_4_gib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.zlib, "compress", lambda _: Huge(b""))
    few_rows(monkeypatch, 3 * 45)
    with pytest.raises(InputError, match="cannot be written as TIFF"):
        save_rows(rows_of(pixels_of("RGB"), "RGB", (1,)), io.BytesIO(), "tiff")


class Huge(bytes):
    """Claims to be long."""

    def __len__(self) -> int:
        return 2**30


def test_a_directory_of_another_size_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100, 102])
    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "save", lambda *_: next(sizes))
    with pytest.raises(ValueError, match="changed its size"):
        write_tiff(rows_of(pixels_of("L"), "L", (9,)), io.BytesIO())


def test_rows_become_an_image_and_an_array() -> None:
    pixels = pixels_of("LA")
    assert np.array_equal(rows_of(pixels, "LA", (4,)).whole(), pixels)
    image = image_from_rows(rows_of(pixels, "LA", (4,)))
    assert image.mode == "LA" and image.info == {"icc_profile": b"profile"}


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff"])
def test_camera_exif_goes_into_every_format(small: Image.Image, extension: str) -> None:
    exif = camera_exif().tobytes().removeprefix(b"Exif\0\0")
    picture = replace(picture_from_image(small), metadata=Metadata(exif=exif))
    out = io.BytesIO()
    save_rows(rows_from_picture(picture), out, extension)
    with Image.open(io.BytesIO(out.getvalue())) as image:
        assert image.getexif()[0x010F] == "Camera"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


def test_tags_that_pillow_reads_but_cannot_write_are_left_out_of_tiff() -> None:
    odd = exif_with(306, 11, struct.pack("<f", 1.5))  # a date that is a float
    interoperability = Image.Exif()
    interoperability[0x010F] = "Camera"
    interoperability.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    interoperability.get_ifd(0x8769)[0xA005] = 68
    for block, kept in ((odd, None), (interoperability.tobytes()[6:], "Camera")):
        out = io.BytesIO()
        picture = Picture(np.zeros((4, 4, 3), np.uint8), metadata=Metadata(exif=block))
        save_rows(rows_from_picture(picture), out, "tiff")
        with Image.open(io.BytesIO(out.getvalue())) as image:
            exif = image.getexif()
            assert exif.get(0x010F) == kept and 0xA005 not in exif.get_ifd(0x8769)
