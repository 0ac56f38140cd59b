from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bkcodec import container as module
from bkcodec.codec import Codec
from bkcodec.container import (
    Container,
    container_from_bytes,
    container_to_bytes,
    read_container,
    write_container,
)
from bkcodec.errors import BkcError, FormatError, LimitError, UnsupportedError
from bkcodec.metadata import Metadata
from bkcodec.options import Limits

FINGERPRINT = b"\x01\x02\x03\x04"
PLAIN = Container(FINGERPRINT, 768, 512, 16, 100, b"\xaa\xbb\xcc\xdd")
FULL = Container(
    FINGERPRINT,
    3,
    2,
    16,
    7,
    b"zzzz",
    alpha=b"png",
    metadata=Metadata(b"i" * 100, b"e", b"x"),
    timestep=12,
    seed=5,
    greyscale=True,
)

containers = st.builds(
    Container,
    fingerprint=st.binary(min_size=4, max_size=4),
    width=st.integers(1, 16000),
    height=st.integers(1, 16000),
    stride=st.integers(1, 255),
    level=st.integers(0, 200),
    z=st.binary(max_size=50),
    alpha=st.none() | st.binary(max_size=20),
    metadata=st.builds(Metadata, *[st.none() | st.binary(min_size=1, max_size=200)] * 3),
    timestep=st.none() | st.integers(0, 999),
    seed=st.integers(0, 2**31 - 1),
    greyscale=st.booleans(),
)


def sealed(body: bytes) -> bytes:
    """Body with a fitting CRC, so that only the body can be at fault."""
    return body + struct.pack("<I", zlib.crc32(body))


def header(
    width: bytes = b"\x08", height: bytes = b"\x08", stride: int = 16, level: int = 1
) -> bytes:
    return b"\x8bBKC\x01" + FINGERPRINT + width + height + bytes([stride, level])


def test_the_bytes_of_a_plain_file() -> None:
    body = bytes.fromhex("8b424b43 01 01020304 8006 8004 10 64 01 04 aabbccdd".replace(" ", ""))
    assert container_to_bytes(PLAIN) == sealed(body)


def test_a_plain_photo_spends_at_most_24_bytes_outside_z() -> None:
    big = Container(FINGERPRINT, 16383, 16383, 16, 200, bytes(2_000_000))
    assert len(container_to_bytes(big)) - len(big.z) <= 24


@given(containers)
def test_round_trip(c: Container) -> None:
    assert container_from_bytes(container_to_bytes(c)) == c
    out = io.BytesIO()
    write_container(c, out)
    out.seek(0)
    assert read_container(out) == c


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_our_error(data: bytes) -> None:
    for candidate in (data, header() + data, sealed(header() + data)):
        with contextlib.suppress(BkcError):
            container_from_bytes(candidate)


def test_truncation_at_every_offset() -> None:
    data = container_to_bytes(FULL)
    for n in range(len(data)):
        with pytest.raises((FormatError, UnsupportedError)):
            container_from_bytes(data[:n])


def test_every_flipped_bit_is_noticed() -> None:
    data = container_to_bytes(FULL)
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            with pytest.raises((FormatError, UnsupportedError)):
                container_from_bytes(bytes(broken))


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"PNG.............", FormatError, "magic"),
        (b"\x8bBKC\x02" + bytes(20), UnsupportedError, "version 2"),
        (header(width=b"\x00"), FormatError, "none may be 0"),
        (header(stride=0), FormatError, "none may be 0"),
        (header(level=201), FormatError, "level 201"),
        (header(width=b"\x88\x00"), FormatError, "shortest-form"),
        (header(width=b"\xff\xff\xff\xff\x7f"), FormatError, "shortest-form"),
        (header(width=b"\xff\xff\xff\xff\xff\x01"), FormatError, "shortest-form"),
        (header(b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x07"), LimitError, "pixels"),
        (header(), FormatError, "no z section"),
        (header() + b"\x01\x00\x01\x00", FormatError, "twice"),
        (header() + b"\x01\x00\x03\x00", UnsupportedError, "critical section 0x03"),
        (header() + b"\x01\x05ab", FormatError, "needs 5 bytes"),
        (header() + b"\x01\x00\x82\x00", FormatError, "icc"),
        (header() + b"\x01\x00\x82\x01\x00", FormatError, "icc section is empty"),
        (header() + b"\x01\x00\x83\x02\x07e", FormatError, "unknown packing 7"),
        (header() + b"\x01\x00\x83\x03\x01ee", FormatError, "exif"),
        (header() + b"\x01\x00\x85\x03\x00\x00\x00", FormatError, "too many in the hints"),
        (header() + b"\x01\x00\x86\x01\x02", FormatError, "layout"),
    ],
)
def test_each_fault_has_its_error(body: bytes, error: type[BkcError], message: str) -> None:
    with pytest.raises(error, match=message):
        container_from_bytes(sealed(body))


def test_unknown_ancillary_sections_are_skipped() -> None:
    parsed = container_from_bytes(sealed(header() + b"\x01\x01z\xf0\x03abc"))
    assert parsed.z == b"z"


def test_a_zlib_bomb_is_refused_before_it_unpacks() -> None:
    bomb = b"\x01" + zlib.compress(bytes(2**25), 9)
    length = bytes([0x80 | len(bomb) & 0x7F, 0x80 | len(bomb) >> 7 & 0x7F, len(bomb) >> 14])
    with pytest.raises(LimitError, match="unpacks to over"):
        container_from_bytes(sealed(header() + b"\x01\x00\x84" + length + bomb))


def test_zlib_with_a_trailer_or_cut_short_is_refused() -> None:
    stream = zlib.compress(b"metadata" * 4)
    for payload in (b"\x01" + stream + b"!", b"\x01" + stream[:-2]):
        with pytest.raises(FormatError, match="zlib stream"):
            container_from_bytes(
                sealed(header() + b"\x01\x00\x82" + bytes([len(payload)]) + payload)
            )


def test_limits() -> None:
    data = container_to_bytes(PLAIN)
    with pytest.raises(LimitError, match="the limit is 1000"):
        container_from_bytes(data, Limits(max_pixels=1000))
    assert container_from_bytes(data, Limits(max_pixels=0)) == PLAIN
    with pytest.raises(LimitError, match="file larger"):
        read_container(io.BytesIO(data), Limits(max_file_bytes=len(data) - 1))
    with pytest.raises(LimitError, match="file larger"):
        container_from_bytes(data, Limits(max_file_bytes=len(data) - 1))
    with pytest.raises(LimitError, match="varint"):
        container_to_bytes(Container(FINGERPRINT, 2**31, 1, 16, 0, b""))


def test_the_specification_says_the_same_words() -> None:
    text = (Path(__file__).parent.parent / "formats" / "bkc-1.md").read_text("utf-8")
    assert module.__doc__ is not None
    words = module.__doc__.split("\n", 2)[2].strip()
    assert words in text
    assert re.search(r"version, 1|version 1", text)


def test_section_numbers_are_frozen() -> None:
    numbers = (
        module.Z,
        module.ALPHA,
        module.ICC,
        module.EXIF,
        module.XMP,
        module.HINTS,
        module.LAYOUT,
    )
    assert numbers == (0x01, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86)
    assert module.MAGIC == b"\x8bBKC"


def test_huge_metadata_is_refused_by_the_encoder(small: Image.Image, codec: Codec) -> None:
    image = small.copy()
    image.info["icc_profile"] = bytes(2**24 + 1)
    with pytest.raises(LimitError, match="metadata block"):
        codec.encode(image)
    image.info = {"icc_profile": "text", "xmp": 5, "exif": 7}
    assert "icc_profile" not in codec.decode(codec.encode(image)).info


def test_a_file_far_longer_than_its_picture_is_not_read_whole() -> None:
    pixel = (ROOT / "formats" / "vectors" / "pixel-q50.bkc").read_bytes()

    class Endless(io.BytesIO):
        taken = 0

        def read(self, n: int | None = -1) -> bytes:  # type: ignore[override]
            assert n is not None and n > 0
            begin = pixel[self.taken : self.taken + n]
            self.taken += n
            return begin.ljust(n, b"\0")

    file = Endless()
    with pytest.raises(LimitError, match="larger than the limit of 67"):
        read_container(file)
    assert file.taken < 2**27
    with pytest.raises(LimitError):
        container_from_bytes(pixel + bytes(2**27))
