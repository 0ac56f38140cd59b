"""What people ask for beside a quality: a metric's value, regions, grey maps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bkcodec.inspection import info

Run = Callable[..., int]
Shown = pytest.CaptureFixture[str]


@pytest.fixture
def photos(tmp_path: Path, lake: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos large enough for every metric, and one that is not."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    lake.crop((100, 100, 300, 280)).save(folder / "a.png")
    lake.crop((400, 200, 600, 380)).convert("L").save(folder / "b.png")
    lake.crop((0, 0, 120, 100)).save(folder / "tiny.png")
    return folder


def test_what_was_reached_is_said(run: Run, photos: Path, capsys: Shown) -> None:
    assert run("encode", "photos/a.png", "--target", "ssimulacra2=45") == 0
    line = capsys.readouterr().err
    value = float(line.partition("SSIMULACRA2 ")[2].split()[0])
    assert 45 <= value < 47
    assert run("encode", "photos/a.png", "-f", "--target", "psnr=30", "--measure", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["target"] == "psnr=30" and 30 <= row["reached"] == pytest.approx(
        row["psnr"], abs=1e-4
    )
    assert row["bytes"] == Path("photos/a.bkc").stat().st_size


def test_a_folder_meets_it_file_by_file(run: Run, photos: Path, capsys: Shown) -> None:
    arguments = ("encode", "photos", "-o", "out/", "--target", "ms-ssim=0.95", "--json")
    assert run(*arguments) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()][:-1]
    good = [row for row in rows if "error" not in row]
    assert len(good) == 2 and all(0.95 <= row["reached"] < 0.96 for row in good)
    (bad,) = (row for row in rows if "error" in row)
    assert bad["exit_code"] == 2 and "needs sides of 161 pixels at least" in err
    assert "120 x 100" in bad["error"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--target", "vmaf=90"), 2, "one of psnr, ms-ssim, ssimulacra2"),
        (("--target", "psnr=nan"), 2, "in 0..100"),
        (("--target", "ms-ssim=2"), 2, "in 0..1"),
        (("--target", "psnr=30", "-q", "3"), 2, "exclude each other"),
        (("--target", "psnr=30", "--target-size", "3k"), 2, "exclude each other"),
        (("--target", "psnr=80"), 7, "no quality reaches PSNR 80.00 dB; the best is PSNR 3"),
        (("--roi", "1,2,3"), 2, "not X,Y,W,H"),
        (("--roi", "150,0,51,10"), 2, "reaches beyond the picture of 200 x 180"),
        (("--map", "nothing.png"), 2, "does not exist"),
        (("--map", "broken.png"), 3, "broken.png: not an image"),
        (("--timeout", "1"), 2, "--timeout needs a search"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Run, photos: Path, capsys: Shown, arguments: tuple[str, ...], code: int, words: str
) -> None:
    Path("broken.png").write_bytes(b"no picture")
    assert run("encode", "photos/a.png", *arguments) == code
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err
    assert not Path("photos/a.bkc").exists()


def test_without_its_package(
    run: Run, photos: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    assert run("encode", "photos", "--target", "ssimulacra2=50") == 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "pip install '.[metrics]'" in err
    assert run("encode", "photos/a.png", "--target", "psnr=25") == 0


def test_regions_and_maps_are_shown(run: Run, photos: Path, capsys: Shown) -> None:
    Image.new("L", (3, 2), 108).save("mask.png")
    arguments = ("--roi", "0,0,64,64", "--roi", "128,64,10,10:+12.5", "--map", "mask.png")
    assert run("encode", "photos/a.png", "-q", "40", *arguments) == 0
    assert "(map scaled from 3x2)" in capsys.readouterr().err
    expected = [[20, -10, -10, -10], [-10, -10, 2.5, -10], [-10, -10, -10, -10]]
    assert info("photos/a.bkc")["quality_offsets"] == expected
    assert run("info", "photos/a.bkc") == 0
    text = capsys.readouterr().out
    assert "points of quality, added:" in text and "+20 -10 -10 -10\n" in text
    assert run("info", "photos/a.bkc", "--json") == 0
    assert json.loads(capsys.readouterr().out)["quality_offsets"] == expected


def test_places_are_those_of_the_upright_photo(run: Run, photos: Path) -> None:
    """A photo that lies on its side: its file has the sides the other way round."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("photos/a.png").save("lying.jpg", exif=exif, quality=95)
    assert run("encode", "lying.jpg", "--roi", "128,0,52,64:+10") == 0
    values = info("lying.bkc")
    assert (values["width"], values["height"]) == (180, 200)
    assert values["quality_offsets"] == [[0, 0, 10], *[[0, 0, 0]] * 3]
    assert run("encode", "lying.jpg", "-f", "--roi", "0,0,200,10") == 2


def test_time_that_is_up_still_gives_a_file(run: Run, photos: Path, capsys: Shown) -> None:
    arguments = ("--target", "psnr=28", "--timeout", "0", "--json")
    assert run("encode", "photos/a.png", *arguments) == 0
    assert json.loads(capsys.readouterr().out)["reached"] >= 28


def test_pillow_takes_the_same(tmp_path: Path, lake: Image.Image) -> None:
    import bkcodec.pillow_plugin  # noqa: F401

    image = lake.crop((0, 0, 200, 100))
    image.save(tmp_path / "a.bkc", target="psnr=28", regions=(bkcodec.Region(0, 0, 60, 60),))
    assert np.count_nonzero(info(tmp_path / "a.bkc")["quality_offsets"]) == 1
