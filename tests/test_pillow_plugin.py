from __future__ import annotations

import copy
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import camera_exif
from PIL import Image, UnidentifiedImageError

import bkcodec
import bkcodec.pillow_plugin


def test_save_and_open(small: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.bkc"
    small.save(path, quality=60, icc_profile=b"ignored")
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == ("BKC", small.size, "RGB")
        assert image.get_format_mimetype() == "image/x-bkc"
        expected = np.asarray(bkcodec.decode(path.read_bytes()))
        assert np.array_equal(np.asarray(image), expected)
        assert np.array_equal(np.asarray(image.resize((10, 10)))[0, 0].shape, (3,))


def test_open_reads_the_header_only(small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    grey = small.convert("LA")
    grey.info["xmp"] = b"packet"
    grey.save(out, "BKC", target_size=1500, strip=["icc"])
    assert len(out.getvalue()) <= 1500
    monkeypatch.setattr("bkcodec.codec.decode", lambda data: pytest.fail("decoded too early"))
    image = Image.open(io.BytesIO(out.getvalue()))
    assert image.mode == "LA" and image.info["xmp"] == b"packet"


def test_damaged_files_are_not_identified(bkc: bytes) -> None:
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(bkc[:-1]))


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
