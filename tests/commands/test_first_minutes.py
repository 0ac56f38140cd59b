"""What people type first, and what they then stumble over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import camera_exif, fresh
from PIL import Image

import bkcodec
from bkcodec import codec as codec_module
from bkcodec.bench.metrics import psnr as psnr_of_bench
from bkcodec.commands.values import byte_size
from bkcodec.metrics import ms_ssim, psnr

Run = Callable[..., int]
Shown = pytest.CaptureFixture[str]


def test_the_first_commands_that_one_types(here: Path) -> None:
    alone, help_, short = fresh(), fresh("help"), fresh("-V")
    assert alone.returncode == help_.returncode == short.returncode == 0
    assert alone.stdout == help_.stdout and b"bkcodec encode photo.jpg" in alone.stdout
    assert short.stdout.strip().endswith(bkcodec.__version__.encode())
    encode = fresh("help", "encode")
    assert encode.stdout == fresh("encode", "--help").stdout
    assert b"Many files:\n  bkcodec encode photos/ -r" in encode.stdout
    assert fresh("help", "nothing").returncode == 2


def test_every_option_is_in_the_help(here: Path) -> None:
    from bkcodec.commands.decode import decode
    from bkcodec.commands.encode import encode

    for command in (encode, decode):
        shown = fresh(str(command.name), "--help").stdout.decode()
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[-1] in shown
        grouped = [name for group in command.groups for name in group.names]
        assert len(set(grouped)) == len(grouped)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["encode", "one.bkc"], "is a .bkc file; use decode", 3),
        (["decode", "one.png", "-o", "x.png"], "not a .bkc file (an image; use encode)", 4),
        (["encode", "one.png", "-o", "y.jpg"], "encode writes .bkc files", 2),
        (["decode", "one.bkc", "--jpeg-quality", "90"], "does not apply to png", 2),
        (["decode", "one.bkc", "--alpha", "nocolour"], "neither keep, drop nor a colour", 2),
        (["encode", "one.png", "--keep-thumbnail", "--strip", "exif"], "kept and stripped", 2),
        (["encode", "one.png", "--quiet", "-v"], "exclude each other", 2),
    ],
)
def test_the_wrong_way_is_named(
    run: Run, here: Path, bkc: bytes, capsys: Shown, arguments: list[str], words: str, code: int
) -> None:
    Path("one.bkc").write_bytes(bkc)
    name = "two.bkc" if arguments[:2] == ["encode", "one.bkc"] else None
    assert run(*arguments, *(["-o", name] if name else [])) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "n"),
    [("5kb", 5000), ("5KiB", 5120), ("6K", 6000), ("1.5M", 1_500_000), ("2MiB", 2**21)],
)
def test_sizes_as_people_write_them(text: str, n: int) -> None:
    assert byte_size(text) == n


def test_names_keep_their_extension(run: Run, here: Path) -> None:
    assert run("encode", "one.png", "--keep-extension") == 0
    assert Path("one.png.bkc").exists()


def test_a_folder_becomes_a_folder(run: Run, here: Path, capsys: Shown) -> None:
    Path("photos").mkdir()
    Path("one.png").rename("photos/one.png")
    Path("photos/notes.heic").write_bytes(b"no")
    assert run("encode", "photos", "-o", "small") == 0
    assert Path("small/one.bkc").exists()
    shown = capsys.readouterr().err
    assert "1 of 1 files" in shown and "1 .heic" in shown
    assert run("encode", "photos", "-o", "two.png") == 2


def test_a_batch_ends_with_a_summary(run: Run, here: Path, capsys: Shown) -> None:
    assert run("encode", "one.png", "two.png", "-o", "out/", "-j", "0", "--json") == 0
    *rows, last = map(json.loads, capsys.readouterr().out.splitlines())
    summary = last["summary"]
    assert summary["bytes_after"] == sum(row["bytes"] for row in rows)
    assert summary["bytes_before"] == sum(Path(f"{n}.png").stat().st_size for n in ("one", "two"))
    assert run("encode", "one.png", "two.png", "-o", "out/", "-f", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_outputs_in_the_way_are_refused_before_anything_is_loaded(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("one.bkc").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(codec_module, "Codec", lambda *_: pytest.fail("loaded"))
        assert run("encode", "one.png") == 3 and run("encode", "one.png", "--skip-existing") == 0
    assert run("encode", "one.png", "--dry-run") == 0 and Path("one.bkc").read_bytes() == b"old"


def test_measuring_and_reducing(run: Run, here: Path, lake: Image.Image, capsys: Shown) -> None:
    lake.save("lake.png")
    assert run("encode", "lake.png", "--measure", "--max-side", "200", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["width"], row["height"]) == (200, round(200 * lake.height / lake.width))
    reduced = lake.resize((row["width"], row["height"]), Image.Resampling.LANCZOS)
    decoded = bkcodec.decode("lake.bkc")
    assert row["psnr"] == pytest.approx(psnr(np.asarray(reduced), np.asarray(decoded)), abs=1e-3)
    assert row["notes"] == [f"reduced from {lake.width}x{lake.height}"]
    assert run("encode", "one.png", "--measure") == 0
    assert "PSNR" in capsys.readouterr().err


def test_metrics_are_those_of_the_benchmark(lake: Image.Image) -> None:
    import torch
    from pytorch_msssim import ms_ssim as of_torch

    a = np.asarray(lake.crop((0, 0, 301, 222)))
    noise = np.random.default_rng(0).normal(0, 12, a.shape)
    b = np.clip(a + noise, 0, 255).astype(np.uint8)
    x, y = (torch.from_numpy(v.copy()).permute(2, 0, 1)[None].float() for v in (a, b))
    assert ms_ssim(a, b) == pytest.approx(float(of_torch(x, y, data_range=255)), abs=1e-4)
    assert psnr(a, b) == pytest.approx(
        10 * np.log10(255**2 / ((x - y) ** 2).mean().item()), abs=1e-3
    )
    assert psnr(a, a) == float("inf") and ms_ssim(a[:100], b[:100]) is None
    assert psnr_of_bench is not psnr


def test_metadata_that_is_large_is_told_of(run: Run, here: Path, capsys: Shown) -> None:
    exif = camera_exif(1)
    exif[0x010E] = "".join(map(chr, np.random.default_rng(0).integers(33, 126, 4000)))
    Image.open("one.png").convert("RGB").save("tagged.jpg", exif=exif)
    assert run("encode", "tagged.jpg") == 0
    shown = capsys.readouterr().err
    assert "of which EXIF 3," in shown and "--strip exif" in shown
    assert run("encode", "tagged.jpg", "-f", "--target-size", "2k") == 7
    assert "of which exif 3," in capsys.readouterr().err


def test_alpha_and_jpeg_on_the_way_out(run: Run, here: Path) -> None:
    image = Image.new("RGBA", (64, 48), (200, 30, 20, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 48))
    image.save("cut.png")
    assert run("encode", "cut.png", "-q", "90") == 0
    assert run("decode", "cut.bkc", "-o", "cut.jpg") == 2
    assert run("decode", "cut.bkc", "-o", "cut.jpg", "--alpha", "white") == 0
    flat = Image.open("cut.jpg")
    assert min(flat.getpixel((5, 20))) > 245 and flat.getpixel((60, 20))[0] > 170
    assert flat.layer[0][1:3] == (1, 1), "colours at full resolution"
    assert run("decode", "cut.bkc", "-o", "b.jpg", "--alpha", "drop", "--jpeg-quality", "50") == 0
    assert Image.open("b.jpg").layer[0][1:3] == (2, 2)
    assert run("decode", "cut.bkc", "-o", "c", "--format", "tif") == 0
    assert Image.open("c").format == "TIFF"


def test_more_than_a_jpeg_holds_is_left_out_and_said(
    run: Run, here: Path, capsys: Shown, small: Image.Image
) -> None:
    small.save("big.webp", xmp=b"<x>" + b"y" * 70_000 + b"</x>", exif=camera_exif(1))
    assert run("encode", "big.webp") == 0 and run("decode", "big.bkc", "-o", "big.jpg") == 0
    assert "left out: XMP of 70,007 bytes" in capsys.readouterr().err
    assert Image.open("big.jpg").getexif()[271]


def test_kinds_of_arguments_in_python(here: Path, bkc: bytes) -> None:
    image = Image.open("one.png").convert("RGB")
    data = bkcodec.encode(image)
    pixels = np.asarray(image)
    for photo in ("one.png", Path("one.png"), Path("one.png").read_bytes(), pixels):
        assert bkcodec.encode(photo) == data
    Path("one.bkc").write_bytes(data)
    for file in ("one.bkc", Path("one.bkc"), data, memoryview(data)):
        assert bkcodec.decode(file).size == image.size and bkcodec.info(file)["width"] == 130
    for bad in (None, 3, pixels.astype(float), pixels[..., [0] * 5]):
        with pytest.raises(TypeError, match=r"photo"):
            bkcodec.encode(bad)  # type: ignore[arg-type]
    for read in (bkcodec.decode, bkcodec.info):
        with pytest.raises(TypeError, match="a path or bytes"):
            read(3)
    assert {"Backbone", "Codec", "encode"} <= set(dir(bkcodec))


def test_a_codec_refuses_options_for_another(tmp_path: Path, bkc: bytes) -> None:
    codec = bkcodec.Codec()
    with pytest.raises(bkcodec.UsageError, match="has the bundle lite"):
        codec.encode(Image.new("RGB", (9, 9)), bkcodec.EncodeOptions(model="bk-sdm"))
    with pytest.raises(bkcodec.UsageError, match="runs on cpu"):
        codec.decode(bkc, bkcodec.DecodeOptions(device="cuda"))


def test_onnx_runtime_is_told_not_to_report(tmp_path: Path, here: Path) -> None:
    code = (
        "import bkcodec, os; bkcodec.encode('one.png'); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr


def test_help_of_a_command_of_a_command(run: Run, capsys: Shown) -> None:
    assert run("help", "models", "add") == 0
    assert "Install a bundle" in capsys.readouterr().out
    assert run("help", "encode", "add") == 2
    assert "no command 'encode add'" in capsys.readouterr().err


def test_summaries_are_whole_at_80_columns(run: Run, capsys: Shown) -> None:
    assert run("help") == 0
    text = capsys.readouterr().out
    assert "..." not in text.partition("Commands:")[2]


def test_kinds_that_need_a_package_say_which(run: Run, here: Path, capsys: Shown) -> None:
    (here / "phone").mkdir()
    (here / "phone" / "a.heic").write_bytes(b"x")
    assert run("encode", "phone", "-o", "out/") == 3
    assert "heic needs pillow-heif" in capsys.readouterr().err
    (here / "one.png").rename(here / "phone" / "one.png")
    assert run("encode", "phone", "-o", "out/") == 0
    assert "1 .heic; heic needs pillow-heif" in capsys.readouterr().err
    assert run("encode", "phone", "-o", "out/", "-f", "--quiet") == 0
    assert not capsys.readouterr().err


def test_options_of_a_search_are_named_as_one_types_them(
    run: Run, here: Path, capsys: Shown
) -> None:
    for arguments, text in (
        (("-q", "30", "--target-size", "5k"), "--quality and --target-size exclude each other"),
        (("--tune", "psnr"), "--tune matters to a search"),
        (("--effort", "1", "--tune", "lpips"), "--tune lpips needs --lpips FILE"),
    ):
        assert run("encode", "one.png", *arguments) == 2
        assert text in capsys.readouterr().err
