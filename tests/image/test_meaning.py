"""What samples mean: the right picture, or one clear line; with inputs made here."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import camera_exif
from image_files import png, tiff
from PIL import Image, ImageCms, TiffImagePlugin

import bkcodec
from bkcodec.errors import InputError, LimitError
from bkcodec.image import opening
from bkcodec.image.exif import thumbnail_bytes, without_gps, without_thumbnail
from bkcodec.image.opening import MAX_FRAMES, load_pixels, n_frames, open_header
from bkcodec.image.picture import Picture, filled
from bkcodec.image.profiles import PRIMARIES, SRGB, Signal, profile_of, space_of, to_srgb
from bkcodec.image.reading import picture_from_image, read_picture
from bkcodec.options import Limits

RAMP = np.arange(0, 65536, 331, dtype=np.uint32)[:192]
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def read(data: bytes) -> Picture:
    return read_picture(io.BytesIO(data))


def rounded(values: np.ndarray) -> np.ndarray:
    return (values + 128) // 257


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_png_samples_of_16_bits_are_rounded(colour: int) -> None:
    n = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = np.stack([np.roll(RAMP, 7 * i) for i in range(n)], axis=-1).reshape(8, 24, n)
    picture = read(png(values, 16, colour))
    expected = rounded(values)
    seen = np.full((8, 24), True)
    if n in (2, 4):
        assert np.array_equal(picture.alpha, expected[..., -1])
        seen = expected[..., -1] > 0
    m = 3 if n > 2 else 1
    assert np.array_equal(picture.rgb[seen][:, :m], expected[seen][:, :m])
    assert picture.greyscale == (n < 3)


def test_a_16_bit_colour_key_is_compared_with_16_bits() -> None:
    values = np.array([[[257, 514, 771], [257, 514, 770], [65535, 0, 9]]], np.uint32)
    picture = read(png(values, 16, 2, (b"tRNS", struct.pack(">3H", 257, 514, 771))))
    assert picture.alpha is not None and picture.alpha.tolist() == [[0, 255, 255]]
    grey = read(png(values[..., :1], 16, 0, (b"tRNS", struct.pack(">H", 65535))))
    assert grey.alpha is not None and grey.alpha.tolist() == [[255, 255, 0]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [1, 3, 4])
def test_tiff_samples_of_16_bits_are_rounded(order: str, planes: int) -> None:
    values = np.stack([np.roll(RAMP, 5 * i) for i in range(planes)], -1).reshape(8, 24, planes)
    if planes == 4:
        values[..., 3] = np.maximum(values[..., 3], 257)
    tags = {"t338": 2} if planes == 4 else {}
    plain = values.astype(np.uint16) if planes > 1 else values[..., 0].astype(np.uint16)
    picture = read(tiff(plain, order, **tags))
    n = min(planes, 3)
    assert np.array_equal(picture.rgb[..., :n], rounded(values)[..., :n])
    if planes == 4:
        assert np.array_equal(picture.alpha, rounded(values)[..., 3])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_is_zero(kind: type) -> None:
    values = np.array([[0, 1, np.iinfo(kind).max]], kind)
    assert read(tiff(values, t262=0)).rgb[0, :, 0].tolist() == [255, 254 + (kind == np.uint16), 0]


REFUSED = {
    "raw file": {"t50706": 1},
    "raw file must be developed": {"t262": 32803},
    "raw": {"t254": 1, "t330": 8},
    "preview": {"t254": 1},
    "of a kind": {"t262": 9},
    "signed": {"t339": 2},
}


@pytest.mark.parametrize("message", REFUSED)
def test_tiff_files_that_mean_something_else_are_refused(message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tiff(np.zeros((4, 4), np.uint8), **REFUSED[message]))


def test_more_tiff_files_that_are_refused() -> None:
    grey = np.zeros((4, 4), np.int32)
    for format_ in (1, 2):
        with pytest.raises(InputError, match="range is unknown"):
            read(tiff(grey, t339=format_))
    planes = np.zeros((4, 4, 3), np.uint16)
    with pytest.raises(InputError, match="separate planes"):
        read(tiff(planes, t284=2, t273=(8, 40, 72), t279=(32, 32, 32), t278=4))
    with pytest.raises(InputError, match="inks"):
        read(tiff(np.zeros((4, 4, 4), np.uint8), t262=5, t332=2))
    with pytest.raises(InputError, match="outside of 0"):
        picture_from_image(Image.fromarray(np.array([[70000]], np.int32)))


def test_twelve_bits_are_scaled() -> None:
    row = b"\xff\xff\xff\x00\x00\x00"  # 4095, 4095, 0, 0
    data = bytearray(tiff(np.frombuffer(row, np.uint8)[None], t258=12, t256=4))
    assert read(bytes(data)).rgb[0, :, 0].tolist() == [255, 255, 0, 0]


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def test_a_gamma_becomes_a_profile() -> None:
    values = np.array([[[128, 64, 32], [10, 20, 30]]], np.uint8)
    for usual in ((), (gamma(0.45455),), (gamma(1), (b"sRGB", b"\0"))):
        assert read(png(values, 8, 2, *usual)).metadata.icc is None
    linear = read(png(values, 8, 2, gamma(1)))
    shown = np.asarray(to_srgb(Image.fromarray(linear.rgb), linear.metadata.icc))
    assert shown[0, 0].tolist() == [188, 137, 99]  # the curve of sRGB, by hand
    grey = read(png(values[..., :1], 8, 0, gamma(1)))
    assert space_of(grey.metadata.icc) == "grey"
    named = read(png(values, 8, 2, gamma(1), (b"iCCP", b"x\0\0" + zlib.compress(SRGB_PROFILE))))
    assert named.metadata.icc == SRGB_PROFILE


def test_primaries_become_a_profile() -> None:
    values = np.array([[[128, 128, 128], [0, 255, 0]]], np.uint8)
    p3 = struct.pack(">8I", *(round(c * 100_000) for c in PRIMARIES[12]))
    for chunks in ([gamma(0.45455), (b"cHRM", p3)], [(b"cICP", bytes([12, 13, 0, 1]))]):
        picture = read(png(values, 8, 2, *chunks))
        assert space_of(picture.metadata.icc) == "RGB"
        shown = np.asarray(to_srgb(Image.fromarray(picture.rgb), picture.metadata.icc), int)
        assert abs(shown[0, 0] - 128).max() <= 1
    assert read(png(values, 8, 2, (b"cICP", bytes([1, 13, 0, 1])))).metadata.icc is None


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((9, 16, 0, 1), "PQ"),
        ((9, 18, 0, 1), "HLG"),
        ((1, 13, 0, 0), "range"),
        ((77, 13, 0, 1), "77"),
    ],
)
def test_hdr_and_unknown_colours_are_refused(codes: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(png(np.zeros((2, 2, 3), np.uint8), 8, 2, (b"cICP", bytes(codes))))


def test_profiles_say_what_signals_mean() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2))
    same = np.asarray(to_srgb(ramp, profile_of(Signal(), False)), int)
    assert abs(same - np.asarray(ramp, int)).max() <= 1
    assert Signal(SRGB, (0, (2.2,))).is_srgb and not Signal(SRGB, (0, (1.8,))).is_srgb


def cmyk_profile() -> bytes:
    """A profile that inks cannot be: one for RGB, said to be for CMYK, is of no use."""
    return SRGB_PROFILE[:16] + b"CMYK" + SRGB_PROFILE[20:]


def test_cmyk_without_a_profile_that_can_be_used_is_said() -> None:
    image = Image.new("CMYK", (4, 4), (200, 10, 10, 10))
    for profile in (None, cmyk_profile(), SRGB_PROFILE):
        if profile:
            image.info["icc_profile"] = profile
        picture = picture_from_image(image)
        assert picture.metadata.icc is None and "approximate" in picture.notes[0]


def test_lab_goes_through_its_own_colours() -> None:
    lab = Image.new("LAB", (2, 2), (128, 128 + 60, 128))
    red, green, blue = picture_from_image(lab).rgb[0, 0].tolist()
    assert red > 150 > blue > green


def test_what_is_grey_is_stored_as_grey_without_a_profile_for_colours() -> None:
    linear = profile_of(Signal(SRGB, (0, (1.0,))), False)
    grey = Image.new("L", (4, 4), 128)
    grey.info["icc_profile"] = linear
    for image in (grey, grey.convert("RGB")):
        image.info["icc_profile"] = linear
        picture = picture_from_image(image)
        assert picture.greyscale and picture.metadata.icc is None
        assert picture.rgb[0, 0].tolist() == [188] * 3
    colour = Image.new("RGB", (4, 4), "red")
    colour.info["icc_profile"] = profile_of(Signal(), True)
    picture = picture_from_image(colour)
    assert picture.metadata.icc is None and "for grey does not fit" in picture.notes[0]


XMP_WITH_GAIN_MAP = (
    b'<x><rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
    b'xmlns:Container="c" dc:title="kept"><Container:Directory><rdf:Seq><rdf:li><Container:Item '
    b'Item:Semantic="GainMap" Item:Length="1"/></rdf:li></rdf:Seq></Container:Directory>'
    b"</rdf:Description></x>"
)


def test_gain_maps_are_left_out_with_their_claims() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "JPEG", xmp=XMP_WITH_GAIN_MAP)
    picture = read(out.getvalue())
    assert "gain map" in picture.notes[0] and picture.metadata.xmp is not None
    assert b"kept" in picture.metadata.xmp
    assert not any(word in picture.metadata.xmp for word in (b"GainMap", b"hdrgm", b"Directory"))


def test_a_jpeg_that_lacks_only_its_end_is_read(lake: Image.Image) -> None:
    for options in ({}, {"progressive": True}):
        out = io.BytesIO()
        lake.crop((0, 0, 100, 80)).save(out, "JPEG", **options)
        whole = read(out.getvalue())
        assert np.array_equal(read(out.getvalue()[:-2]).rgb, whole.rgb)
        cut = out.getvalue()[: -len(out.getvalue()) // 3]
        with pytest.raises(InputError, match="damaged JPEG"):
            read(cut)
        image = open_header(io.BytesIO(cut), Limits())
        assert load_pixels(image, accept_damaged=True) and image.size == (100, 80)


def test_formats_whose_readers_decode_are_asked_for_their_size_first() -> None:
    inside = png(np.zeros((1, 1, 3), np.uint8), 8, 2)
    bomb = inside[:16] + struct.pack(">II", 20_000, 20_000) + inside[24:]
    icon = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(bomb), 22) + bomb
    with pytest.raises(LimitError, match="20000 x 20000"):
        open_header(io.BytesIO(icon), Limits())
    bits = 0 | (2 << 1) | (40_000 - 1 << 3) | (1 << 21)  # not small, 18 bits of height, ratio 1:1
    jxl = b"\xff\x0a" + bits.to_bytes(8, "little")
    with pytest.raises(LimitError, match="40000 x 40000"):
        open_header(io.BytesIO(jxl), Limits())


def test_a_jpeg_of_many_scans_is_refused(lake: Image.Image) -> None:
    out = io.BytesIO()
    lake.crop((0, 0, 16, 16)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(LimitError, match="scans"):
        open_header(io.BytesIO(data[:-2] + scan * 300 + data[-2:]), Limits())


def test_frames_are_counted_up_to_a_limit() -> None:
    frame = b"\x2c" + bytes(4) + b"\1\0\1\0\0" + b"\2\2\x44\1\0"
    gif = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + frame * (MAX_FRAMES + 500) + b";"
    file = io.BytesIO(gif)
    assert n_frames(file, open_header(file, Limits())) == MAX_FRAMES
    out = io.BytesIO()
    pages = [Image.new("L", (2, 2)) for _ in range(3)]
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    assert n_frames(out, open_header(io.BytesIO(out.getvalue()), Limits())) == 3
    pages[0].save(out := io.BytesIO(), "GIF")
    assert n_frames(out, open_header(io.BytesIO(out.getvalue()), Limits())) == 1


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0\0\0\x18ftypheic", "pillow-heif"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\xff\x0a", "pillow-jxl-plugin"),
        (b"\0\0\0\x18ftypcrx ", "a raw file"),
        (b"FUJIFILMCCD-RAW ", "a raw file"),
    ],
)
def test_kinds_that_cannot_be_read_are_named(
    head: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "ADDED", ())
    monkeypatch.setattr(opening, "INPUT_FORMATS", ("PNG", "JPEG"))
    with pytest.raises(InputError, match=words):
        open_header(io.BytesIO(head + bytes(40)), Limits())


def test_opaque_planes_are_dropped(small: Image.Image) -> None:
    assert picture_from_image(small.convert("RGBA")).alpha is None


def test_colours_that_nobody_sees_are_filled(lake: Image.Image) -> None:
    rgb = np.asarray(lake)[:91, :93].copy()
    rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    alpha = np.where(np.hypot(rows - 45, columns - 46) < 30, 255, 0).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, rgb.shape).astype(np.uint8)
    hidden = np.where(alpha[..., None] > 0, rgb, noise)
    out = filled(hidden, alpha)
    assert np.array_equal(out[alpha > 0], rgb[alpha > 0])
    sizes = [
        len(bkcodec.encode(Image.fromarray(np.dstack([pixels, alpha]))))
        for pixels in (hidden, np.where(alpha[..., None] > 0, rgb, 0).astype(np.uint8))
    ]
    assert abs(sizes[0] - sizes[1]) < 16
    plain = len(bkcodec.encode(Image.fromarray(hidden)))
    assert sizes[0] < plain / 1.5
    nothing = filled(hidden, np.zeros_like(alpha))
    assert not nothing.any()
    assert filled(hidden, np.full_like(alpha, 1)) is hidden


def exif_with_thumbnail(orientation: int = 1) -> bytes:
    """A block whose second directory has a preview of 5,000 bytes at its end."""
    exif = camera_exif(orientation)
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x8825] = {1: "N", 2: (48.0, 7.0, 0.5)}
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    order = "<" if block.startswith(b"II") else ">"
    (first,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, first)
    link = first + 2 + 12 * count
    second = len(block)
    picture = b"\xff\xd8" + bytes(range(1, 201)) * 25
    table = struct.pack(order + "H", 2)
    table += struct.pack(order + "HHII", 0x201, 4, 1, second + 30)
    table += struct.pack(order + "HHII", 0x202, 4, 1, len(picture)) + bytes(4)
    return block[:link] + struct.pack(order + "I", second) + block[link + 4 :] + table + picture


def parsed(block: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block or b"")
    return exif


def test_thumbnails_and_places_go_and_the_rest_stays() -> None:
    block = exif_with_thumbnail()
    assert thumbnail_bytes(block) == 5002
    plain, placeless = without_thumbnail(block), without_gps(block)
    assert thumbnail_bytes(plain) == 0 and len(plain) < len(block) - 5000
    assert dict(parsed(plain)) == dict(parsed(block)) and parsed(plain).get_ifd(0x8825)
    assert not parsed(placeless).get_ifd(0x8825) and thumbnail_bytes(placeless) == 5002
    assert 0x8825 not in parsed(placeless) and parsed(placeless)[271] == parsed(block)[271]
    for cut in range(len(block) - 5002):
        for change in (without_thumbnail, without_gps):
            assert len(change(block[:cut])) <= cut
    assert without_gps(b"none") == b"none" and thumbnail_bytes(None) == 0


def test_large_thumbnails_are_not_stored(tmp_path: Path, small: Image.Image) -> None:
    def stored(orientation: int, **options: object) -> int:
        path = tmp_path / "a.jpg"
        small.save(path, exif=b"Exif\0\0" + exif_with_thumbnail(orientation))
        data = bkcodec.encode(Image.open(path), bkcodec.EncodeOptions(**options))
        return thumbnail_bytes(bkcodec.decode(data).info["exif"].removeprefix(b"Exif\0\0"))

    assert stored(1) == 0 and stored(1, keep_thumbnail=True) == 5002
    assert stored(6, keep_thumbnail=True) == 0, "it would lie on its side"
    assert stored(1, target_size=90_000, quality=None) == 5002
    assert stored(1, keep_thumbnail=True, strip=frozenset({"gps"})) == 5002


def test_tiff_tags_stay_and_iptc_and_resolution_are_listed(small: Image.Image) -> None:
    out = io.BytesIO()
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[40092], info[271] = b"c\0o\0", "Camera"
    small.save(out, "TIFF", tiffinfo=info, dpi=(300, 300))
    picture = read(out.getvalue())
    kept = parsed(picture.metadata.exif)
    assert kept[271] == "Camera" and 40092 in kept and kept[282] == 300 and not picture.notes
    small.save(out := io.BytesIO(), "JPEG", dpi=(300, 300), comment="hello")
    assert read(out.getvalue()).notes == ("left out: resolution (300 dpi), comment",)


def test_images_made_in_a_program_are_not_turned(small: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    small.save(path, exif=camera_exif(6))
    image = Image.open(path)
    assert bkcodec.decode(bkcodec.encode(image)).size == (small.height, small.width)
    for made in (image.resize((40, 30)), image.rotate(-90, expand=True), image.copy()):
        decoded = bkcodec.decode(bkcodec.encode(made))
        assert decoded.size == made.size and decoded.getexif().get(0x0112, 1) == 1


def test_exif_comes_back_as_pillows_writers_want_it(small: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    small.save(path, exif=camera_exif(1))
    with Image.open(path) as image:
        decoded = bkcodec.decode(bkcodec.encode(image))
    decoded.save(path, exif=decoded.info["exif"])
    with Image.open(path) as back:
        assert back.getexif()[271] == camera_exif(1)[271]


def test_drawings_are_told_of_better_formats() -> None:
    rng = np.random.default_rng(0)
    letters = np.where(rng.random((80, 80, 1)) < 0.1, 0, 255).astype(np.uint8).repeat(3, axis=2)
    assert any("drawings" in note for note in picture_from_image(Image.fromarray(letters)).notes)
    photo = rng.integers(0, 256, (80, 80, 3)).astype(np.uint8)
    assert not picture_from_image(Image.fromarray(photo)).notes
