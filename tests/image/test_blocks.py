"""EXIF and XMP blocks in the forms that cameras and phones write them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from image_files import png
from PIL import Image

import bkcodec
from bkcodec.image.exif import without_thumbnail
from bkcodec.image.metadata import stripped
from bkcodec.image.picture import Picture
from bkcodec.image.reading import read_picture
from bkcodec.metadata import EXIF_PREFIX, Metadata

RGB = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"


def exif(orientation: int = 6) -> bytes:
    block = Image.Exif()
    block[0x112] = orientation
    block.get_ifd(0x8825)[1], block.get_ifd(0x8825)[2] = "N", (48.0, 7.0, 13.0)
    return block.tobytes().removeprefix(EXIF_PREFIX)


def segment(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", 2 + len(payload)) + payload


def jpeg(*payloads: bytes) -> bytes:
    out = io.BytesIO()
    Image.fromarray(RGB).save(out, "JPEG", quality=95)
    data = out.getvalue()
    return data[:2] + b"".join(map(segment, payloads)) + data[2:]


def read(data: bytes) -> Picture:
    return read_picture(io.BytesIO(data))


def packet(attributes: str, elements: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/'
        f'22-rdf-syntax-ns#"><rdf:Description rdf:about="" {attributes}>{elements}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_prefix_that_is_written_too_often(times: int) -> None:
    for data in (
        jpeg(EXIF_PREFIX * max(1, times) + exif()),
        png(RGB, 8, 2, (b"eXIf", EXIF_PREFIX * times + exif())),
    ):
        picture = read(data)
        assert picture.size == (16, 24)  # turned once
        block = picture.metadata.exif
        parsed = Image.Exif()
        parsed.load(block or b"")
        assert parsed[0x112] == 1 and parsed.get_ifd(0x8825)[1] == "N"
        bare = stripped(picture.metadata, {"gps"}).exif
        parsed.load(bare or b"")
        assert not parsed.get_ifd(0x8825) and 0x8825 not in parsed


def with_preview(start: int, n_bytes: int) -> bytes:
    """Orientation and a maker's name at 200; a preview that claims some bytes."""
    block = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 2)
    block += struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + struct.pack(">HHII", 0x10F, 2, 12, 200)
    block = (block + struct.pack(">I", 50)).ljust(50, b"\0") + struct.pack(">H", 2)
    block += struct.pack(">HHII", 0x201, 4, 1, start) + struct.pack(">HHII", 0x202, 4, 1, n_bytes)
    return (block + bytes(4)).ljust(200, b"\0") + b"ImportantCo\0" + b"\7" * 50


@pytest.mark.parametrize(
    ("start", "n_bytes"), [(8, 10**6), (0, 0), (100, 150), (150, 10**6), (2**31, 5), (4, 30)]
)
def test_previews_that_claim_what_is_not_theirs(start: int, n_bytes: int) -> None:
    block = with_preview(start, n_bytes)
    left = without_thumbnail(block)
    assert len(left) == len(block) and left[200:] == block[200:]
    parsed = Image.Exif()
    parsed.load(left)
    assert parsed[0x10F].rstrip("\0") == "ImportantCo" and not parsed.get_ifd(1)
    turned = read(jpeg(EXIF_PREFIX + block)).metadata.exif
    assert turned is not None and b"ImportantCo" in turned


def test_a_preview_at_the_end_takes_its_bytes_along() -> None:
    block = with_preview(212, 50)
    left = without_thumbnail(block)
    assert len(left) == 212 and left[200:] == b"ImportantCo\0"


@pytest.mark.parametrize(
    "said",
    [
        'drone-dji:GpsLatitude="+48.1" drone-dji:GpsLongtitude="+11.5" drone-dji:Latitude="48.1"',
        'e:GPSLatitude="48,7.2N" e:GPSMapDatum="WGS-84"',
        "drone-dji:AbsoluteAltitude='+520.1' drone-dji:RelativeAltitude='+30'",
    ],
)
def test_places_in_xmp_go_under_any_name(said: str) -> None:
    kept = 'tiff:Make="DJI" xmp:CreateDate="2026-01-01"'
    elements = "<drone-dji:Longitude>11.5</drone-dji:Longitude><e:GPSAltitude>520</e:GPSAltitude>"
    left = stripped(Metadata(xmp=packet(f"{kept} {said}", elements)), {"gps"}).xmp
    assert left == packet(kept)


def test_gain_maps_under_any_prefix() -> None:
    name = 'xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"'
    picture = read(jpeg(XMP_HEAD + packet(f'tiff:Make="A" {name} h:Version="1.0"')))
    assert picture.metadata.xmp == packet('tiff:Make="A"')
    assert any("gain map" in note for note in picture.notes)


def test_what_is_left_out_is_said_and_no_longer_claimed() -> None:
    motion = 'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="99"'
    guid = 'xmpNote:HasExtendedXMP="0123456789ABCDEF0123456789ABCDEF"'
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + b"<more/>"
    data = jpeg(XMP_HEAD + packet(f'tiff:Make="A" {motion} {guid}'), extension)
    picture = read(data)
    assert picture.metadata.xmp == packet('tiff:Make="A"')
    assert any("motion" in note for note in picture.notes)
    assert any("extended" in note for note in picture.notes)


def test_xmp_in_utf_16_is_kept_as_utf_8() -> None:
    text = packet('tiff:Make="Ä"').decode()
    picture = read(jpeg(XMP_HEAD + text.encode("utf-16")))
    assert picture.metadata.xmp == text.encode()
    image = bkcodec.decode(bkcodec.encode(jpeg(XMP_HEAD + text.encode("utf-16"))))
    assert image.info["xmp"] == text.encode()


def test_texts_of_png_files_are_named() -> None:
    chunks = [(b"tEXt", b"Author\0Somebody"), (b"tEXt", b"Comment\0Something")]
    (note,) = (n for n in read(png(RGB, 8, 2, *chunks)).notes if "left out" in n)
    assert "Author, Comment" in note
