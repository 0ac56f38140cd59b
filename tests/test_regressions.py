"""What an attack on the program once found, so that it stays found."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from safetensors.numpy import save_file

import bkcodec
import bkcodec.pillow_plugin
from bkcodec.bundle import Bundle, find_bundle, load_bundle
from bkcodec.codec import Codec
from bkcodec.coding.assembly import load_model
from bkcodec.container import Container, container_from_bytes, container_to_bytes
from bkcodec.errors import FormatError, InputError, LimitError, UnsupportedError
from bkcodec.files import write_whole
from bkcodec.image.picture import Picture, apply_alpha, rows_from_picture
from bkcodec.image.reading import alpha_from_png, open_image, picture_from_image
from bkcodec.image.writing import alpha_to_png, save_rows
from bkcodec.metadata import Metadata
from bkcodec.tiling import tile_cells

Run = Callable[..., int]


@pytest.fixture
def here(tmp_path: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    small.save("one.png")
    return tmp_path


def camera_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera", orientation
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return exif


def test_pipes_and_devices_are_never_replaced(here: Path) -> None:
    os.mkfifo("fifo")
    with pytest.raises(InputError, match="no regular file"):
        write_whole(Path("fifo"), b"data", force=True)
    assert Path("fifo").is_fifo()


def test_extract_does_not_overwrite_its_input(run: Run, here: Path, small: Image.Image) -> None:
    small.save("photo.png", exif=camera_exif())
    assert run("encode", "photo.png", "-o", "photo.bkc") == 0
    before = Path("photo.bkc").read_bytes()
    arguments = ["info", "--extract", "exif", "-o", "./photo.bkc", "-f", "photo.bkc"]
    assert run(*arguments) == 2
    assert Path("photo.bkc").read_bytes() == before


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff"])
def test_camera_exif_goes_into_every_format(small: Image.Image, extension: str) -> None:
    exif = camera_exif().tobytes().removeprefix(b"Exif\0\0")
    picture = replace(picture_from_image(small), metadata=Metadata(exif=exif))
    out = io.BytesIO()
    save_rows(rows_from_picture(picture), out, extension)
    with Image.open(io.BytesIO(out.getvalue())) as image:
        assert image.getexif()[0x010F] == "Camera"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


@pytest.mark.parametrize(
    ("width", "height"), [(2**26, 1), (1, 2**26), (2**31 - 1, 2**31 - 1), (2**28, 1)]
)
def test_a_line_of_pixels_is_not_cheap(codec: Codec, width: int, height: int) -> None:
    data = container_to_bytes(Container(codec.bundle.fingerprint, width, height, 16, 100, b""))
    for read in (bkcodec.decode, lambda d: bkcodec.info(d, verify=True)):
        with pytest.raises(LimitError):
            read(data)
    assert bkcodec.info(data)["width"] == width


def test_timesteps_beyond_the_schedule_are_refused(bkc: bytes) -> None:
    for timestep in (1000, 10**8):
        hinted = container_to_bytes(replace(container_from_bytes(bkc), timestep=timestep))
        with pytest.raises(FormatError, match="beyond the bundle's schedule"):
            bkcodec.decode(hinted)


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
    image = small.copy()
    image.info["exif"] = block + b"maker notes at fixed offsets"
    picture = picture_from_image(image)
    assert picture.size == (small.height, small.width)
    assert picture.metadata.exif is not None
    changed = [a != b for a, b in zip(block[6:], picture.metadata.exif, strict=False)]
    assert sum(changed) == 1 and picture.metadata.exif.endswith(b"maker notes at fixed offsets")


def test_an_orientation_of_another_integer_type_is_reset_too() -> None:
    entry = struct.pack(">HHII", 0x0112, 4, 1, 6)  # LONG instead of SHORT
    image = Image.new("RGB", (4, 2))
    image.info["exif"] = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    picture = picture_from_image(image)
    assert picture.size == (2, 4)
    assert picture.metadata.exif == image.info["exif"].replace(entry, entry[:-1] + b"\x01")


def test_huge_metadata_is_refused_by_the_encoder(small: Image.Image, codec: Codec) -> None:
    image = small.copy()
    image.info["icc_profile"] = bytes(2**24 + 1)
    with pytest.raises(LimitError, match="metadata block"):
        codec.encode(image)
    image.info = {"icc_profile": "text", "xmp": 5, "exif": 7}
    assert "icc_profile" not in codec.decode(codec.encode(image)).info


def test_metadata_of_a_plain_tiff_is_kept(small: Image.Image) -> None:
    out = io.BytesIO()
    small.save(out, "TIFF", tiffinfo={271: "Camera", 315: "Artist"})
    picture = picture_from_image(open_image(io.BytesIO(out.getvalue())))
    assert picture.metadata.exif is not None
    kept = Image.Exif()
    kept.load(picture.metadata.exif)
    assert dict(kept) == {271: "Camera", 315: "Artist"}


def test_grey_profile_goes_when_grey_becomes_colour() -> None:
    pixels, profile = np.zeros((1, 1, 3), np.uint8), Metadata(b"grey profile")
    grey = Picture(pixels, np.zeros((1, 1), np.uint8), True, profile)
    assert apply_alpha(grey, "red").metadata.icc is None
    assert apply_alpha(grey, "white").metadata.icc == b"grey profile"


def test_no_helper_programs_run_on_input() -> None:
    with pytest.raises(InputError, match="not an image"):
        open_image(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n"))


def test_a_broken_second_page_does_not_hurt_the_first(here: Path, run: Run) -> None:
    out = io.BytesIO()
    Image.new("L", (5, 5)).save(out, "TIFF")
    data = bytearray(out.getvalue())
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, 3)
    Path("pages.tif").write_bytes(data)
    assert run("encode", "pages.tif") == 0


def test_a_missing_file_does_not_stop_a_batch(run: Run, here: Path) -> None:
    assert run("encode", "one.png", "gone.png", "-o", "out/") == 1
    assert Path("out/one.bkc").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["encode", "n" * 300], 1),
        (["encode", "one.png", "-o", "loop.bkc"], 1),
        (["encode", "one.png", "--target-size", "inf"], 2),
        (["encode", "one.png", "--target-size", "5Mk"], 2),
        (["encode", "one.png", "--target-bpp", "inf"], 2),
        (["encode", ""], 3),
        (["encode", "one.png", "-o", "-", "-f"], 2),
        (["encode", "one.png", "-r"], 2),
        (["encode", "one.png", "one.png", "-o", "x/", "--alpha", "none"], 2),
        (["encode", "one.png", "--dry-run", "--keep-mtime"], 2),
        (["encode", "one.png", "-o", "one.png/x.bkc", "-f"], 1),
        (["decode", "one.png", "-o", "x.png", "--realism", "nan"], 2),
        (["info", "one.png", "-f"], 2),
    ],
)
def test_odd_arguments(
    run: Run, here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    Path("loop.bkc").symlink_to("loop.bkc")
    assert run(*arguments) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("bkcodec: error: ")


def test_a_full_standard_output_is_one_line(bkc: bytes, here: Path) -> None:
    Path("one.bkc").write_bytes(bkc)
    command = [sys.executable, "-m", "bkcodec", "info", "one.bkc"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "fault",
    [
        "stride text",
        "stride 17",
        "nested",
        "parts",
        "levels",
        "channels",
        "float lengths",
        "flat low",
        "nan step",
        "nan weight",
        "model type",
    ],
)
def test_hostile_bundles(tmp_path: Path, fault: str) -> None:

    lite: Bundle = load_bundle(find_bundle("lite"))
    header, networks = dict(lite.header), dict(lite.networks)
    first = lite.prior.first  # type: ignore[union-attr]
    tables = {k: getattr(first, k) for k in ("lengths", "low", "weights")}
    changes: dict[str, dict[str, object]] = {
        "stride text": {"stride": "16"},
        "stride 17": {"stride": 17},
        "parts": {"parts": None},
        "model type": {"model": {**header["model"], "M": "many"}},
    }
    header |= changes.get(fault, {})
    if fault == "levels":
        n = int(tables["lengths"][:5].sum())
        tables = {
            "lengths": tables["lengths"][:5],
            "low": tables["low"][:5],
            "weights": tables["weights"][:n],
        }
    if fault == "channels":
        tables = {
            "lengths": np.ones((201, 3), np.uint16),
            "low": np.zeros((201, 3), np.int16),
            "weights": np.zeros(603, np.uint16),
        }
    if fault == "float lengths":
        tables["lengths"] = tables["lengths"].astype(np.float32)
    if fault == "flat low":
        tables["low"] = tables["low"].ravel()
    if fault == "nan step":
        networks["quantiser.log_step"] = networks["quantiser.log_step"] * np.nan
    if fault == "nan weight":
        networks["vae.decoder.head.weight"] = networks["vae.decoder.head.weight"] * np.nan
    text = "[" * 200_000 if fault == "nested" else json.dumps(header)
    path = tmp_path / "bad.safetensors"
    arrays = {f"net.{k}": v for k, v in networks.items()} | lite.prior.bundled()
    arrays |= {f"tables.{k}": v for k, v in tables.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, {"bkcodec": text})
    with pytest.raises(UnsupportedError):
        load_model(path, "cpu")


def test_the_plugin_pickles_copies_and_closes(bkc: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.bkc"
    path.write_bytes(bkc)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        image = Image.open(path)
        image.load()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    with Image.open(path) as image:
        twin = pickle.loads(pickle.dumps(image))
        assert np.array_equal(np.asarray(twin), np.asarray(copy.deepcopy(image)))


def test_the_plugin_takes_metadata_like_other_formats(small: Image.Image) -> None:
    out = io.BytesIO()
    small.save(out, "BKC", icc_profile=b"profile", exif=camera_exif(), strip="xmp", xmp=b"packet")
    with Image.open(io.BytesIO(out.getvalue())) as image:
        assert image.info["icc_profile"] == b"profile" and "xmp" not in image.info
        assert image.getexif()[0x010F] == "Camera"


def test_odd_images_of_the_api(codec: Codec, bkc: bytes) -> None:
    with pytest.raises(InputError, match="nothing to encode"):
        codec.encode(Image.new("RGB", (0, 3)))
    with pytest.raises(InputError, match="La image"):
        codec.encode(Image.new("La", (3, 3)))
    assert bkcodec.decode(memoryview(bkc)).size == (130, 87)  # type: ignore[arg-type]


def test_alpha_planes_of_other_depths_are_refused(small: Image.Image, codec: Codec) -> None:
    out = io.BytesIO()
    Image.new("L", small.size).convert("1").save(out, "PNG")
    data = replace(container_from_bytes(codec.encode(small)), alpha=out.getvalue())
    with pytest.raises(FormatError, match="alpha plane"):
        bkcodec.decode(container_to_bytes(data))


def test_transparent_values_of_few_bits() -> None:
    path = ROOT / "tests" / "samples" / "grey4-transparent.png"
    with path.open("rb") as file:
        picture = picture_from_image(open_image(file))
    assert picture.alpha is not None and picture.alpha.tolist() == [[255, 0, 255, 255]]


def test_a_line_of_pixels_is_tiled_and_counted_in_cells(run: Run, here: Path) -> None:
    Image.new("L", (1, 70_000), 90).save("thin.png")
    assert run("encode", "thin.png", "--max-pixels", 100_000) == 6  # as decoding it would be
    assert tile_cells(None, 1, 300_000, 16) and not tile_cells(None, 1, 200_000, 16)
    assert run("encode", "thin.png") == 0 and run("decode", "thin.bkc", "-o", "out.png") == 0


def test_a_full_disk_under_decode_is_the_systems_error(run: Run, here: Path, bkc: bytes) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    for extension in ("png", "tiff", "ppm", "jpg", "webp"):
        rows = rows_from_picture(Picture(np.zeros((9, 9, 3), np.uint8)))
        with pytest.raises(OSError, match="No space left"):
            save_rows(rows, Full(), extension)


def exif_with(tag: int, kind: int, value: bytes) -> bytes:
    return b"II*\0" + struct.pack("<IHHHI4sI", 8, 1, tag, kind, 1, value, 0)


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


@pytest.mark.parametrize("kind", [6, 8, 9, 11])
def test_an_orientation_of_an_odd_type_becomes_a_short(kind: int) -> None:
    value = {6: b"\6\0\0\0", 8: b"\6\0\0\0", 9: b"\6\0\0\0", 11: struct.pack("<f", 6)}[kind]
    image = Image.new("RGB", (4, 2))
    image.info["exif"] = exif_with(0x0112, kind, value)
    picture = picture_from_image(image)
    assert picture.metadata.exif == exif_with(0x0112, 3, b"\1\0\0\0")


def test_a_profile_of_many_megabytes_goes_through_png(run: Run, here: Path) -> None:
    profile = os.urandom(1_500_000)
    out = io.BytesIO()
    picture = Picture(np.zeros((4, 4, 3), np.uint8), metadata=Metadata(icc=profile))
    save_rows(rows_from_picture(picture), out, "png")
    assert picture_from_image(open_image(io.BytesIO(out.getvalue()))).metadata.icc == profile


def test_palettes_with_alpha_keep_it() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 128], "RGBA")
    image.putpixel((1, 0), 1)
    alpha = picture_from_image(image).alpha
    assert alpha is not None and alpha.tolist() == [[0, 128]]


def test_small_files_are_read_in_little_memory(here: Path) -> None:
    code = (
        "import resource; from pathlib import Path; from bkcodec.files import read_whole\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))\n"
        "read_whole(Path('one.png'), 2**30)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pillows_limit_returns_before_an_alpha_plane_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    data = alpha_to_png(np.zeros((4, 4), np.uint8))
    load = Image.Image.tobytes
    monkeypatch.setattr(
        Image.Image,
        "tobytes",
        lambda *a, **k: seen.append(Image.MAX_IMAGE_PIXELS) or load(*a, **k),
    )
    assert alpha_from_png(data, (4, 4)).shape == (4, 4)
    assert seen and None not in seen


@pytest.mark.parametrize(
    "arguments",
    [("encode", "one.png", "--target-size", "9" * 400), ("encode", "one.png", "-o", "")],
)
def test_more_odd_arguments(run: Run, here: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments) == 2


def test_a_closed_standard_output(here: Path) -> None:
    command = f"{sys.executable} -m bkcodec encode one.png -o - >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 2 and "standard output is closed" in done.stderr
