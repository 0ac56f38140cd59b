"""One picture as a page: the exact pixels, nothing else of the files, and clear refusals."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import camera_exif, names, psnr
from PIL import Image, ImageCms

from bkcodec.codec import decode
from bkcodec.pages import view as page_module

Run = Callable[..., int]


def shown(page: Path) -> dict[str, Any]:
    """What the page's script gets; pictures as Pillow's."""
    match = re.search(r'<script type="application/json" id="data">(.*)</script>', page.read_text())
    assert match is not None
    data: dict[str, Any] = json.loads(match[1])
    for key in data.keys() & {"left", "right"}:
        kind, _, text = data[key].partition(";base64,")
        data[key] = Image.open(io.BytesIO(base64.b64decode(text)))
        assert kind == f"data:{data[key].get_format_mimetype()}"
    return data


def test_the_pixels_are_those_of_the_decoder(here: Path, small: Image.Image, run: Run) -> None:
    assert run("encode", "one.png", "two.png", "-o", "./") == 0
    assert run("view", "one.bkc", "one.png") == 0
    page = shown(here / "one.html")
    decoded = decode((here / "one.bkc").read_bytes())
    assert np.array_equal(page["left"], decoded) and np.array_equal(page["right"], small)
    assert (page["width"], page["height"]) == small.size
    assert run("view", "one.bkc", (here / "one.png").as_uri(), "-o", "url.html") == 0
    text = (here / "one.html").read_text()
    assert text == (here / "url.html").read_text()
    assert f"PSNR {psnr(small, decoded):.2f} dB" in text
    assert f"{(here / 'one.bkc').stat().st_size:,} bytes" in text
    assert run("view", "two.bkc", "two.png", "-o", "grey.html") == 0
    grey = shown(here / "grey.html")
    assert grey["left"].mode == grey["right"].mode == "L"
    assert run("view", "two.bkc", "-o", "new/") == 0  # alone, into a folder
    assert "right" not in shown(here / "new" / "two.html")
    assert "PSNR" not in (here / "new" / "two.html").read_text()


def test_a_page_has_the_colours_but_not_the_place(here: Path, small: Image.Image, run: Run) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lying = small.transpose(Image.Transpose.ROTATE_90)
    lying.save("lying.jpg", exif=camera_exif(6), icc_profile=profile, quality=90)
    assert run("encode", "lying.jpg") == 0 and run("view", "lying.bkc", "lying.jpg") == 0
    page = shown(here / "lying.html")
    for key in ("left", "right"):
        assert page[key].size == small.size  # upright
        assert page[key].info["icc_profile"] == profile and not page[key].getexif()
    assert b"Camera" in (here / "lying.jpg").read_bytes()
    clear = small.copy()
    clear.putalpha(90)
    clear.save("clear.png")
    assert run("encode", "clear.png") == 0 and run("view", "clear.bkc", "clear.png") == 0
    page = shown(here / "clear.html")
    assert page["left"].mode == page["right"].mode == "RGBA"
    assert "PSNR" not in (here / "clear.html").read_text()  # colours behind glass


@pytest.fixture
def coded(here: Path, run: Run) -> Path:
    assert run("encode", "one.png") == 0
    (here / "cut.bkc").write_bytes((here / "one.bkc").read_bytes()[:-9])
    (here / "there.html").write_text("mine")
    (here / "folder").mkdir()
    return here


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("one.bkc", "-o", "there.html"), 3, "exists already"),
        (("one.bkc", "two.png"), 3, "has 50 x 40 pixels, the decoded picture 130 x 87"),
        (("one.bkc", "nowhere.png"), 3, "nowhere.png: no such file"),
        (("one.bkc", "one.bkc", "-o", "one.bkc", "-f"), 2, "is an input"),
        (("one.bkc", "one.png", "-o", "one.png", "-f"), 2, "is an input"),
        (("one.bkc", "cut.bkc"), 3, "cut.bkc: not an image"),
        (("one.bkc", "-o", "folder.html/x", "-m", "nothing"), 5, "nothing"),
        (("nowhere.bkc",), 3, "no such file"),
        (("cut.bkc",), 4, "cut.bkc"),
        (("one.png",), 4, "not a .bkc file"),
        (("folder",), 2, "is a directory"),
        (("one.bkc", "-o", "-", "-f"), 2, "--force does not apply"),
        (("one.bkc", "--bk-sdm", "nowhere"), 2, "one.bkc"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    coded: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    before = names(coded)
    assert run("view", *arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bkcodec: error: ") and message in line
    assert names(coded) == before and (coded / "there.html").read_text() == "mine"


def test_force_and_pipes(coded: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("view", "one.bkc", "-o", "there.html", "-f") == 0
    assert capsys.readouterr().err == "bkcodec: the page is there.html\n"
    done = subprocess.run(
        [sys.executable, "-m", "bkcodec", "view", "-", "one.png"],
        input=(coded / "one.bkc").read_bytes(),
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"<!doctype html>") and not done.stderr


def test_what_is_too_large_is_a_copy_or_refused(
    here: Path,
    lake: Image.Image,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lake.save("lake.png")
    assert run("encode", "lake.png") == 0 and run("view", "lake.bkc", "lake.png") == 0
    exact = len(shown(here / "lake.html")["right"].fp.getvalue())
    monkeypatch.setattr(page_module, "MAX_BYTES", exact - 1)
    assert run("view", "lake.bkc", "lake.png", "-f") == 0
    page = shown(here / "lake.html")
    assert page["left"].format == "PNG" and page["right"].format == "JPEG"
    assert psnr(page["right"], lake) > 35 and page["right"].size == lake.size
    assert "a JPEG copy is shown" in (here / "lake.html").read_text()
    monkeypatch.setattr(page_module, "MAX_BYTES", 1000)
    capsys.readouterr()
    assert run("view", "lake.bkc", "lake.png", "-f") == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert "lake.bkc: 768 x 512 pixels are too many for a page" in line


def test_psnr_of_odd_pairs() -> None:
    grey = np.full((100, 7, 1), 10, np.uint8)
    colour = np.repeat(grey, 3, axis=2)
    assert page_module.psnr(grey, colour) == page_module.psnr(grey, grey) == math.inf
    colour[:, :, 1] += 3
    assert page_module.psnr(grey, colour) == pytest.approx(10 * math.log10(255**2 / 3))
    assert page_module.psnr(np.dstack([grey, grey]), colour) is None
