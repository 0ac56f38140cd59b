"""A plain install in an environment of its own: no extras, NumPy 2, another folder."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image


@pytest.mark.slow
def test_a_plain_install_encodes_and_decodes(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile", str(ROOT)]
    subprocess.run(install, check=True)
    probe = (
        "import numpy, importlib.util as u; assert int(numpy.__version__.split('.')[0]) >= 2\n"
        "assert not u.find_spec('compressai')\n"
    )
    subprocess.run([python, "-c", probe], check=True, cwd=tmp_path)
    bkcodec = tmp_path / "env" / "bin" / "bkcodec"
    photo = ROOT / "tests" / "samples" / "lake.png"
    for arguments in (
        ["encode", photo, "-o", "lake.bkc"],
        ["decode", "lake.bkc"],
        ["models"],
        ["decode", "lake.bkc", "--steps", "2", "-o", "two.png"],
    ):
        done = subprocess.run([bkcodec, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "lake.png") as image:
        assert image.size == (768, 512)
    for command, extra in (
        ("train", ["--data", ".", "--val", ".", "-o", "x"]),
        ("bench", ["lake.png"]),
    ):
        done = subprocess.run([bkcodec, command, *extra], cwd=tmp_path, capture_output=True)
        assert done.returncode == 5 and f"bkcodec[{command}]".encode() in done.stderr
    assert sys.prefix != str(tmp_path / "env")
