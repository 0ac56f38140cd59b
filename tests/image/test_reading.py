from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageCms, PngImagePlugin

import bkcodec
import bkcodec.pillow_plugin
from bkcodec.codec import Codec
from bkcodec.container import container_from_bytes, container_to_bytes
from bkcodec.errors import FormatError, InputError, LimitError, UsageError
from bkcodec.image.opening import open_header
from bkcodec.image.picture import Picture, apply_alpha, rows_from_picture
from bkcodec.image.reading import alpha_from_png, picture_from_image, read_picture
from bkcodec.image.writing import alpha_to_png, save_rows
from bkcodec.metadata import Metadata
from bkcodec.options import Limits

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r/></x:xmpmeta>'
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def through_file(image: Image.Image, format_: str, **options: object) -> Image.Image:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return open_header(io.BytesIO(out.getvalue()))


@pytest.mark.parametrize(
    ("mode", "back"),
    [
        ("1", "L"),
        ("L", "L"),
        ("LA", "LA"),
        ("P", "RGB"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("I;16", "L"),
        ("I", "L"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
        ("LAB", "RGB"),
        ("PA", "RGBA"),
    ],
)
def test_modes(mode: str, back: str) -> None:
    colours = {"RGB": "red", "RGBA": (9, 8, 7, 6), "CMYK": (9, 0, 0, 0), "YCbCr": (9, 8, 7)}
    image = Image.new(mode, (5, 3), colours.get(mode, 0))
    if mode in ("P", "PA"):
        image.putpalette([1, 2, 3] * 256)
    assert rows_from_picture(picture_from_image(image)).mode == back


def test_sixteen_bits_are_rounded() -> None:
    values = np.array([[0, 128, 129, 65535, 257 * 100]], np.uint16)
    picture = picture_from_image(Image.fromarray(values))
    assert picture.rgb[0, :, 0].tolist() == [0, 0, 1, 255, 100]


def test_a_transparent_sixteen_bit_value_becomes_alpha() -> None:
    image = Image.fromarray(np.array([[7, 8]], np.uint16))
    image.info["transparency"] = 7
    picture = picture_from_image(image)
    assert picture.alpha is not None and picture.alpha.tolist() == [[0, 255]]
    assert picture.greyscale


def test_floating_point_is_refused() -> None:
    with pytest.raises(InputError, match="floating-point"):
        picture_from_image(Image.new("F", (2, 2)))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colour_becomes_alpha(mode: str) -> None:
    image = through_file(
        Image.new(mode, (4, 4)), "PNG", transparency=0 if mode != "RGB" else (0, 0, 0)
    )
    picture = picture_from_image(image)
    assert picture.alpha is not None and not picture.alpha.any()
    assert picture.greyscale  # nothing is to be seen


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(orientation: int) -> None:
    upright = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpositions that store it turned
    turned = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    picture = picture_from_image(through_file(turned, "PNG", exif=exif))
    assert np.array_equal(picture.rgb[..., 0], np.asarray(upright))
    kept = Image.Exif()
    assert picture.metadata.exif is not None
    kept.load(picture.metadata.exif)
    assert kept[0x0112] == 1 and kept[0x010F] == "maker"


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff"])
def test_metadata_goes_through_files(extension: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    picture = Picture(
        np.tile(np.uint8([9, 8, 7]), (8, 9, 1)), metadata=Metadata(ICC, exif.tobytes()[6:], XMP)
    )
    out = io.BytesIO()
    save_rows(rows_from_picture(picture), out, extension)
    back = read_picture(io.BytesIO(out.getvalue()))
    assert back.metadata.icc == ICC
    assert back.metadata.xmp is not None and back.metadata.xmp.strip() == XMP
    with Image.open(io.BytesIO(out.getvalue())) as image:
        assert image.getexif()[0x010F] == "maker"


def test_exif_that_cannot_be_parsed_is_kept_and_the_photo_too() -> None:
    image = Image.new("RGB", (3, 3))
    image.info["exif"] = b"not exif at all"
    picture = picture_from_image(image)
    assert picture.metadata.exif == b"not exif at all" and picture.size == (3, 3)
    for extension in ("png", "jpg", "webp", "tiff"):
        out = io.BytesIO()
        save_rows(rows_from_picture(picture), out, extension)
        assert read_picture(io.BytesIO(out.getvalue())).size == (3, 3)


def test_raw_exif_is_kept_to_the_byte() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    image = through_file(Image.new("RGB", (3, 3)), "JPEG", exif=b"Exif\0\0" + block)
    assert picture_from_image(image).metadata.exif == block


def test_formats_that_cannot_hold_the_picture() -> None:
    alpha = Picture(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
    for extension in ("jpg", "ppm"):
        with pytest.raises(UsageError, match="no alpha"):
            save_rows(rows_from_picture(alpha), io.BytesIO(), extension)
    wide = Picture(np.zeros((1, 20000, 3), np.uint8))
    with pytest.raises(InputError, match="WEBP"):
        save_rows(rows_from_picture(wide), io.BytesIO(), "webp")


def test_ppm_has_no_metadata_and_is_plain() -> None:
    picture = Picture(np.zeros((2, 2, 3), np.uint8), metadata=Metadata(ICC, b"x", XMP))
    out = io.BytesIO()
    save_rows(rows_from_picture(picture), out, "ppm")
    assert out.getvalue() == b"P6\n2 2\n255\n" + bytes(12)


def test_alpha_choices() -> None:
    rgb = np.full((1, 2, 3), 200, np.uint8)
    picture = Picture(rgb, np.array([[255, 0]], np.uint8), greyscale=True)
    assert apply_alpha(picture, "keep") is picture
    assert apply_alpha(picture, "drop").alpha is None
    white = apply_alpha(picture, "white")
    assert white.rgb[0, :, 0].tolist() == [200, 255] and white.greyscale
    red = apply_alpha(picture, "#ff0000")
    assert red.rgb[0, 1].tolist() == [255, 0, 0] and not red.greyscale


def test_alpha_plane_must_fit() -> None:
    plane = np.arange(6, dtype=np.uint8).reshape(2, 3)
    data = alpha_to_png(plane)
    assert np.array_equal(alpha_from_png(data, (3, 2)), plane)
    with pytest.raises(FormatError, match="expected"):
        alpha_from_png(data, (2, 3))
    for damaged in (b"", data[:40], b"GIF89a" + data):
        with pytest.raises(FormatError):
            alpha_from_png(damaged, (3, 2))


def test_damaged_images_are_refused() -> None:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "PNG")
    with pytest.raises(InputError, match="not an image"):
        open_header(io.BytesIO(b"hello"))
    with pytest.raises(InputError, match="damaged PNG"):
        read_picture(io.BytesIO(out.getvalue()[:2000]))


def test_limits_are_checked_before_pixels_are_decoded() -> None:
    out = io.BytesIO()
    Image.new("1", (3000, 3000)).save(out, "PNG")
    with pytest.raises(LimitError, match="the limit is 100"):
        open_header(io.BytesIO(out.getvalue()), Limits(max_pixels=100))
    chunk = bytearray(out.getvalue())
    chunk[16:24] = b"\0\1\0\0\0\1\0\0"  # claims 65536 x 65536
    with pytest.raises((LimitError, InputError)):
        open_header(io.BytesIO(bytes(chunk)))


def test_xmp_of_png_text_chunks() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    picture = picture_from_image(through_file(Image.new("L", (2, 2)), "PNG", pnginfo=info))
    assert picture.metadata.xmp == XMP


def test_a_palette_image_without_a_palette_is_our_error_or_a_picture() -> None:
    """Pillow makes one of a PNG whose PLTE chunk is missing."""
    image = Image.new("P", (2, 2))
    image.palette = None
    with contextlib.suppress(InputError):
        assert picture_from_image(image).size == (2, 2)


Run = Callable[..., int]


def test_no_helper_programs_run_on_input() -> None:
    with pytest.raises(InputError, match="not an image"):
        open_header(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n"))


def test_a_broken_second_page_does_not_hurt_the_first(here: Path, run: Run) -> None:
    out = io.BytesIO()
    Image.new("L", (5, 5)).save(out, "TIFF")
    data = bytearray(out.getvalue())
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, 3)
    Path("pages.tif").write_bytes(data)
    assert run("encode", "pages.tif") == 0


def test_transparent_values_of_few_bits() -> None:
    path = ROOT / "tests" / "samples" / "grey4-transparent.png"
    with path.open("rb") as file:
        picture = read_picture(file)
    assert picture.alpha is not None and picture.alpha.tolist() == [[255, 0, 255, 255]]


def test_palettes_with_alpha_keep_it() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 128], "RGBA")
    image.putpixel((1, 0), 1)
    alpha = picture_from_image(image).alpha
    assert alpha is not None and alpha.tolist() == [[0, 128]]


def test_pillows_limits_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads of an application rely on them, and on its warnings."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    image = through_file(Image.new("L", (50, 50)), "PNG")
    assert image.size == (50, 50) and Image.MAX_IMAGE_PIXELS == 10


def test_a_profile_of_many_megabytes_goes_through_png(run: Run, here: Path) -> None:
    profile = os.urandom(1_500_000)
    out = io.BytesIO()
    picture = Picture(np.zeros((4, 4, 3), np.uint8), metadata=Metadata(icc=profile))
    save_rows(rows_from_picture(picture), out, "png")
    assert read_picture(io.BytesIO(out.getvalue())).metadata.icc == profile


def test_alpha_planes_of_other_depths_are_refused(small: Image.Image, codec: Codec) -> None:
    out = io.BytesIO()
    Image.new("L", small.size).convert("1").save(out, "PNG")
    data = replace(container_from_bytes(codec.encode(small)), alpha=out.getvalue())
    with pytest.raises(FormatError, match="alpha plane"):
        bkcodec.decode(container_to_bytes(data))
