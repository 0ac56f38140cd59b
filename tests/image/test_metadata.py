"""EXIF and XMP blocks are set upright and otherwise kept to the byte."""

from __future__ import annotations

import io
import struct

import pytest
from conftest import camera_exif, exif_with
from PIL import Image

from bkcodec.image.reading import picture_from_image, read_picture


@pytest.mark.parametrize(
    "xmp",
    [
        b'<x tiff:Orientation="6"/>',
        b"<tiff:Orientation>6</tiff:Orientation>",
        b"<x tiff:Orientation = '6' />",
    ],
)
def test_orientation_in_xmp_is_reset_too(xmp: bytes) -> None:
    image = Image.new("RGB", (4, 2))
    image.info["xmp"] = xmp
    picture = picture_from_image(image)
    assert picture.metadata.xmp == xmp.replace(b"6", b"1")


def test_turning_upright_changes_two_bytes_of_exif(small: Image.Image) -> None:
    block = camera_exif(6).tobytes()
    assert block.count(struct.pack(">HHI", 0x0112, 3, 1)) == 1
    out = io.BytesIO()
    small.save(out, "PNG", exif=block + b"maker notes at fixed offsets")
    picture = read_picture(io.BytesIO(out.getvalue()))
    assert picture.size == (small.height, small.width)
    assert picture.metadata.exif is not None
    changed = [a != b for a, b in zip(block[6:], picture.metadata.exif, strict=False)]
    assert sum(changed) == 1 and picture.metadata.exif.endswith(b"maker notes at fixed offsets")


def test_an_orientation_of_another_integer_type_is_reset_too() -> None:
    entry = struct.pack(">HHII", 0x0112, 4, 1, 6)  # LONG instead of SHORT
    image = Image.new("RGB", (4, 2))
    image.info["exif"] = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    out = io.BytesIO()
    image.save(out, "PNG", exif=image.info["exif"])
    picture = read_picture(io.BytesIO(out.getvalue()))
    assert picture.size == (2, 4)
    assert picture.metadata.exif == image.info["exif"].replace(entry, entry[:-1] + b"\x01")


def test_metadata_of_a_plain_tiff_is_kept(small: Image.Image) -> None:
    out = io.BytesIO()
    small.save(out, "TIFF", tiffinfo={271: "Camera", 315: "Artist"})
    picture = read_picture(io.BytesIO(out.getvalue()))
    assert picture.metadata.exif is not None
    kept = Image.Exif()
    kept.load(picture.metadata.exif)
    assert dict(kept) == {271: "Camera", 315: "Artist"}


@pytest.mark.parametrize("kind", [6, 8, 9, 11])
def test_an_orientation_of_an_odd_type_becomes_a_short(kind: int) -> None:
    value = {6: b"\6\0\0\0", 8: b"\6\0\0\0", 9: b"\6\0\0\0", 11: struct.pack("<f", 6)}[kind]
    image = Image.new("RGB", (4, 2))
    image.info["exif"] = exif_with(0x0112, kind, value)
    picture = picture_from_image(image)
    assert picture.metadata.exif == exif_with(0x0112, 3, b"\1\0\0\0")
