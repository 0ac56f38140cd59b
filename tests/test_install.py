"""A plain install in an environment of its own: no extras, no PyTorch, NumPy 2, another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

LARGEST = 350e6  # bytes of the whole environment
PROBE = """
import importlib.util, numpy
assert int(numpy.__version__.split(".")[0]) >= 2
for name in ("torch", "diffusers", "compressai"):
    assert not importlib.util.find_spec(name), name
"""
API = """
import io, bkcodec, bkcodec.pillow_plugin
from PIL import Image
photo = Image.open("photo.png")
data = bkcodec.encode(photo, bkcodec.EncodeOptions(target_size=4000))
assert len(data) <= 4000 and bkcodec.info(data, verify=True)["symbols_sha256"]
assert bkcodec.decode(data).size == photo.size
file = io.BytesIO()
photo.save(file, "BKC")
assert Image.open(io.BytesIO(file.getvalue())).convert("RGB").size == photo.size
"""
WORKS = (
    ["encode", "photo.png", "-o", "photo.bkc"],
    ["encode", "photo.png", "-o", "good.bkc", "--target", "psnr=28"],
    ["decode", "photo.bkc", "-o", "one.png"],
    ["decode", "photo.bkc", "--steps", "2", "-o", "two.png"],
    ["info", "photo.bkc", "--verify"],
    ["view", "photo.bkc", "photo.png"],
    ["models"],
    ["selftest"],
    ["thumbnail", "photo.bkc", "thumbnail.png"],
)
NEEDS = (
    (["train", "--data", ".", "--val", ".", "-o", "x"], "train"),
    (["bench", "photo.png"], "bench"),
    (["encode", "photo.png", "--model", "bk-sdm", "-o", "x.bkc"], "torch"),
    (["encode", "photo.png", "--device", "cuda", "-o", "x.bkc"], "torch"),
    (["encode", "photo.png", "--effort", "1", "-o", "x.bkc"], "torch"),
    (["selftest", "--device", "cuda"], "torch"),
    (["decode", "photo.bkc", "--steps", "2", "--scheduler", "euler", "-o", "x.png"], "torch"),
)


@pytest.mark.slow
def test_a_plain_install_is_light_and_complete(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python, bkcodec = (tmp_path / "env" / "bin" / name for name in ("python", "bkcodec"))
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile", str(ROOT)]
    subprocess.run(install, check=True)
    files = (path for path in (tmp_path / "env").rglob("*") if path.is_file())
    assert sum(path.lstat().st_size for path in files) < LARGEST
    Image.open(ROOT / "tests" / "samples" / "lake.png").save(tmp_path / "photo.png")
    for code in (PROBE, API):
        subprocess.run([python, "-c", code], check=True, cwd=tmp_path)
    for arguments in WORKS:
        done = subprocess.run([bkcodec, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr or done.stdout
    asked = {**os.environ, "_BKCODEC_COMPLETE": "bash_source"}
    done = subprocess.run([bkcodec], env=asked, capture_output=True, text=True, check=True)
    assert "complete -o nosort -F _bkcodec_completion bkcodec" in done.stdout
    for arguments, extra in NEEDS:
        done = subprocess.run([bkcodec, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 5 and len(done.stderr.splitlines()) == 1
        assert f"pip install '.[{extra}]'" in done.stderr
    done = subprocess.run(
        [python, "-c", "import bkcodec; bkcodec.BkSdmCompression"], capture_output=True, text=True
    )
    assert "UnsupportedError: BkSdmCompression" in done.stderr
    assert not list(tmp_path.glob("x*"))
    assert sys.prefix != str(tmp_path / "env")
