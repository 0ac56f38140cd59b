"""Files that are incomplete, or say what they mean in a way that readers miss; made here."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import png, tiff
from PIL import Image, ImageCms

import bkcodec
from bkcodec.errors import InputError
from bkcodec.image.jpeg import is_complete, n_scans
from bkcodec.image.opening import n_frames, open_header
from bkcodec.image.picture import Picture
from bkcodec.image.profiles import SRGB, Signal, profile_of, space_of
from bkcodec.image.reading import picture_from_image, read_picture

PURPLE = profile_of(Signal((0.3127, 0.329, 0.6, 0.3, 0.3, 0.5, 0.2, 0.1)), False)
GREY = (np.arange(24 * 16).reshape(16, 24) % 251 + 2).astype(np.uint8)
RGB = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def read(data: bytes) -> Picture:
    return read_picture(io.BytesIO(data))


def jpeg(photo: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    photo.crop((100, 100, 303, 251)).save(out, "JPEG", quality=90, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 3, "subsampling": 0},
        {"progressive": True, "restart_marker_rows": 2},
    ],
)
def test_a_jpeg_cut_at_a_marker_is_no_whole_one(
    lake: Image.Image, options: dict[str, object]
) -> None:
    data = jpeg(lake, **options)
    assert is_complete(data) and is_complete(data[:-2])
    assert np.array_equal(read(data[:-2]).rgb, read(data).rgb)
    head = data.index(b"\xff\xda")
    cuts = [i for i in range(head, len(data) - 2) if data[i] == 255 and data[i + 1] not in (0, 255)]
    for cut in [i + n for i in cuts for n in (0, 1)][-12:]:
        with pytest.raises(InputError, match="damaged"):
            read(data[:cut])


def test_scans_are_those_of_the_first_picture(lake: Image.Image) -> None:
    data, scans = jpeg(lake), b"\xff\xda" * 5000
    segment = b"\xff\xe5" + struct.pack(">H", 2 + len(scans)) + scans
    assert n_scans(data[:2] + segment + data[2:] + scans) == 1
    assert np.array_equal(read(data[:2] + segment + data[2:] + scans).rgb, read(data).rgb)


def test_one_plane_is_one_plane() -> None:
    assert np.array_equal(read(tiff(GREY, t284=2)).rgb[..., 0], GREY)
    assert np.array_equal(read(tiff(255 - GREY, t284=2, t262=0)).rgb[..., 0], GREY)
    assert np.array_equal(read(tiff(GREY * np.uint16(257), t284=2)).rgb[..., 0], GREY)


def test_a_missing_photometric_interpretation_is_black_is_zero() -> None:
    data = tiff(GREY).replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 271, 3, 1))
    assert np.array_equal(read(data).rgb[..., 0], GREY)


def test_palettes_of_8_bits_are_not_black() -> None:
    colours = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 9)])
    old, new = (tiff(GREY, t262=3, t320=tuple((colours * n).ravel().tolist())) for n in (1, 257))
    assert np.array_equal(read(old).rgb, colours.T[GREY]) and np.array_equal(
        read(new).rgb, read(old).rgb
    )


def test_uncompressed_ycbcr() -> None:
    photo = Image.fromarray(RGB).convert("YCbCr")
    out = io.BytesIO()
    photo.save(out, "TIFF", icc_profile=PURPLE)
    assert read(out.getvalue()).metadata.icc == PURPLE
    for tags in ({"t530": (2, 2)}, {"t530": (1, 1), "t532": (16, 235, 128, 240, 128, 240)}):
        with pytest.raises(InputError, match="YCbCr"):
            read(tiff(np.asarray(photo), t262=6, **tags))


def test_tiff_tiles_that_are_missing() -> None:
    tile = np.zeros((16, 16, 3), np.uint8)
    whole = tiff(tile, t322=16, t323=16, t324=8, t325=tile.nbytes)
    assert read(whole).size == (16, 16)
    with pytest.raises(InputError, match="rows are missing"):
        read(tiff(tile, t256=32, t322=16, t323=16, t324=8, t325=tile.nbytes))


@pytest.mark.parametrize(
    "tags", [{"t278": 8}, {"t273": 0}, {"t279": 100}], ids=["strip", "place", "length"]
)
def test_tiff_rows_that_are_missing(tags: dict[str, object]) -> None:
    data = tiff(RGB, **tags)
    if "t279" in tags:
        size = struct.pack("<HHII", 279, 3, 1, RGB.nbytes)
        data = data.replace(size, struct.pack("<HHII", 279, 3, 1, 100))
    with pytest.raises(InputError, match="rows are missing"):
        read(data)


def test_tiff_rows_that_are_filled_are_said() -> None:
    image = open_header(io.BytesIO(tiff(RGB, t278=8)))
    filled = picture_from_image(image, accept_damaged=True)
    assert "damaged" in filled.notes[0] and np.array_equal(filled.rgb[:8], RGB[:8])


def two_directories(second: dict[int, int], is_sub: bool) -> bytes:
    """An RGB TIFF file and another directory: the next one, or one below."""
    data = bytearray(tiff(RGB, **({"t330": 1} if is_sub else {})))
    place = len(data)
    data += struct.pack("<H", len(second))
    data += b"".join(struct.pack("<HHII", k, 3, 1, v) for k, v in sorted(second.items()))
    data += bytes(4)
    (first,) = struct.unpack_from("<I", data, 4)
    (n,) = struct.unpack_from("<H", data, first)
    if is_sub:
        entry = data.index(struct.pack("<HHI", 330, 3, 1))
        struct.pack_into("<HHII", data, entry, 330, 4, 1, place)
    else:
        struct.pack_into("<I", data, first + 2 + 12 * n, place)
    return bytes(data)


@pytest.mark.parametrize("is_sub", [False, True])
def test_raw_data_in_other_directories(is_sub: bool) -> None:
    with pytest.raises(InputError, match="raw file"):
        read(two_directories({254: 0, 262: 32803}, is_sub))
    assert np.array_equal(read(two_directories({254: 0, 262: 2}, is_sub)).rgb, RGB)


@pytest.mark.parametrize(("tag", "word"), [({"t255": 2}, "preview"), ({"t254": 4}, "mask")])
def test_what_is_no_photo(tag: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        read(tiff(RGB, **tag))


def test_pages_of_bigtiff_are_counted() -> None:
    out = io.BytesIO()
    pages = [Image.fromarray(RGB) for _ in range(3)]
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:], big_tiff=True)
    assert n_frames(out, open_header(io.BytesIO(out.getvalue()))) == 3


def test_png_rows_that_are_missing() -> None:
    whole, part = png(RGB, 8, 2), png(RGB[:9], 8, 2)
    short = whole[:33] + part[33:]  # the header of the one, the pixels of the other
    assert np.array_equal(read(whole).rgb, RGB)
    with pytest.raises(InputError, match="rows are missing"):
        read(short)
    image = open_header(io.BytesIO(short))
    damaged = picture_from_image(image, accept_damaged=True)
    assert np.array_equal(damaged.rgb[:9], RGB[:9]) and "damaged" in damaged.notes[0]
    black = np.zeros_like(RGB)
    assert not read(png(black, 8, 2)).rgb.any()


def bmp(profile: bytes) -> bytes:
    """With the header of version 5 and an embedded profile."""
    head = struct.pack("<IiiHHIIiiII", 124, 24, 16, 1, 24, 0, RGB.nbytes, 0, 0, 0, 0)
    head += bytes(16) + b"DEBM" + bytes(36 + 12 + 4)
    head += struct.pack("<III", 124 + RGB.nbytes, len(profile), 0)
    pixels = RGB[::-1, :, ::-1].tobytes()
    return struct.pack("<2sIII", b"BM", 0, 0, 14 + 124) + head + pixels + profile


def test_profiles_of_bmp_and_jpeg_2000() -> None:
    picture = read(bmp(PURPLE))
    assert np.array_equal(picture.rgb, RGB) and picture.metadata.icc == PURPLE
    out = io.BytesIO()
    Image.fromarray(RGB).save(out, "JPEG2000")
    data = out.getvalue()
    place = data.index(b"colr") - 4
    (length,) = struct.unpack_from(">I", data, place)
    header = data.index(b"jp2h") - 4
    for box, icc in (
        (struct.pack(">I4sBBB", 11 + len(PURPLE), b"colr", 2, 0, 0) + PURPLE, PURPLE),
        (data[place : place + length], None),
    ):
        changed = bytearray(data[:place] + box + data[place + length :])
        (size,) = struct.unpack_from(">I", data, header)
        struct.pack_into(">I", changed, header, size + len(box) - length)
        assert read(bytes(changed)).metadata.icc == icc
    lab = bytearray(data)
    struct.pack_into(">I", lab, place + 11, 14)
    with pytest.raises(InputError, match="colour space"):
        read(bytes(lab))


def chromaticities(values: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in values))


def test_primaries_without_a_gamma_are_of_srgb_s_curve() -> None:
    p3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    assert read(png(RGB, 8, 2, chromaticities(p3))).metadata.icc == profile_of(Signal(p3), False)
    assert read(png(RGB, 8, 2, chromaticities(SRGB))).metadata.icc is None
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    odd = read(png(RGB, 8, 2, gamma, chromaticities((0.0,) * 8))).metadata.icc
    assert odd == read(png(RGB, 8, 2, gamma)).metadata.icc is not None


def test_cicp_of_srgb_is_above_a_profile() -> None:
    profile = (b"iCCP", b"x\0\0" + zlib.compress(PURPLE))
    assert read(png(RGB, 8, 2, profile)).metadata.icc == PURPLE
    cicp = (b"cICP", bytes([1, 13, 0, 1]))
    assert read(png(RGB, 8, 2, cicp, profile)).metadata.icc is None


def test_a_profile_of_an_unknown_space_is_left_out() -> None:
    out = io.BytesIO()
    strange = PURPLE[:16] + b"5CLR" + PURPLE[20:]
    Image.fromarray(RGB).save(out, "PNG", icc_profile=strange)
    picture = read(out.getvalue())
    assert picture.metadata.icc is None and any("5CLR" in note for note in picture.notes)


def test_planes_of_alpha_that_are_empty() -> None:
    nothing = Image.fromarray(np.dstack([RGB, np.zeros_like(GREY)]), "RGBA")
    for kind, is_dropped in (("TGA", True), ("PNG", False)):
        out = io.BytesIO()
        nothing.save(out, kind)
        picture = read(out.getvalue())
        assert (picture.alpha is None) == is_dropped
        assert np.array_equal(picture.rgb, RGB) == is_dropped
        assert any("alpha plane" in n or "transparent" in n for n in picture.notes)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_with_a_profile_of_its_own_as_webp(mode: str, small: Image.Image) -> None:
    """WebP has colours only: the greys become those of sRGB."""
    gamma = profile_of(Signal(SRGB, (0, (1.0,))), True)
    grey = small.convert("L")
    if mode == "LA":
        grey.putalpha(grey.point(lambda v: 255 - v // 2))
    out = io.BytesIO()
    grey.save(out, "PNG", icc_profile=gamma)
    file = bkcodec.encode(out.getvalue(), bkcodec.EncodeOptions(quality=90))
    from bkcodec.codec import Codec
    from bkcodec.container import container_from_bytes
    from bkcodec.image.writing import save_rows

    webp = io.BytesIO()
    rows = Codec().decode_rows(container_from_bytes(file), bkcodec.DecodeOptions())
    save_rows(rows, webp, "webp")
    image = Image.open(webp)
    assert space_of(image.info.get("icc_profile")) is None
    source = ImageCms.ImageCmsProfile(io.BytesIO(gamma))
    target = ImageCms.createProfile("sRGB")
    right = ImageCms.profileToProfile(small.convert("L"), source, target, outputMode="RGB")
    assert right is not None
    difference = np.asarray(image.convert("RGB"), int) - np.asarray(right.convert("RGB"))
    assert np.abs(difference).mean() < 5
