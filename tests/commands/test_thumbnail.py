"""``bkcodec thumbnail`` and the entry that has file managers call it."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, camera_exif, psnr
from PIL import Image

from bkcodec.codec import Codec

Run = Callable[..., int]
ENTRY = ROOT / "formats" / "bkc.thumbnailer"


def entry() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ENTRY)
    return parser["Thumbnailer Entry"]


def test_as_a_file_manager_calls_it(run: Run, here: Path, codec: Codec, lake: Image.Image) -> None:
    lake.save("photo.png", exif=camera_exif())
    with Image.open("photo.png") as photo:
        (here / "a photo.bkc").write_bytes(codec.encode(photo))
    Path("out.png").write_bytes(b"")  # made by the caller
    values = {"%s": "128", "%i": str(here / "a photo.bkc"), "%o": str(here / "out.png")}
    program, *arguments = entry()["Exec"].split()
    assert program == entry()["TryExec"] == "bkcodec"
    assert run(*(values.get(word, word) for word in arguments)) == 0
    with Image.open("out.png") as image:
        assert (image.format, image.size) == ("PNG", (128, 85))
        assert psnr(image, lake.resize((128, 85))) > 25
        assert not image.getexif()


def test_odd_pictures(run: Run, here: Path, codec: Codec) -> None:
    for mode, size, expected in (("LA", (300, 2), (64, 1)), ("RGBA", (40, 30), (40, 30))):
        colour = {"LA": (200, 9), "RGBA": (200, 30, 20, 9)}[mode]
        Path("odd.bkc").write_bytes(codec.encode(Image.new(mode, size, colour)))
        assert run("thumbnail", "--size", "64", "odd.bkc", "out.png") == 0
        with Image.open("out.png") as image:
            assert (image.mode, image.size) == (mode, expected)
            assert (np.asarray(image)[..., -1] == 9).all()


@pytest.mark.parametrize(("content", "code"), [(b"no such file", 4), (None, 3)])
def test_failures_leave_the_output(
    run: Run, here: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, code: int
) -> None:
    if content is not None:
        Path("in.bkc").write_bytes(content)
    Path("out.png").write_bytes(b"before")
    assert run("thumbnail", "in.bkc", "out.png") == code
    assert capsys.readouterr().err.startswith("bkcodec: error: in.bkc: ")
    assert Path("out.png").read_bytes() == b"before"
