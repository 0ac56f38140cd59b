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
    grey.putalpha(200)
    grey.info["xmp"] = b"packet"
    grey.save(out, "BKC", target_size=1500, strip=["icc"])
    assert len(out.getvalue()) <= 1500
    monkeypatch.setattr("bkcodec.codec.decode", lambda *_: pytest.fail("decoded too early"))
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


def test_a_failing_save_keeps_the_old_file(small: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.bkc"
    small.save(path)
    before = path.read_bytes()
    for name in (path, str(path), os.fsencode(path)):
        with pytest.raises(bkcodec.TargetError):
            small.save(name, target_size=10)
        with pytest.raises(TypeError, match="not qualty"):
            small.save(name, qualty=10)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["photo.bkc"]
    small.save(tmp_path / "other", "BKC", quality=5)
    assert (tmp_path / "other").stat().st_size < len(before)


def test_decoding_options_of_an_image(bkc: bytes) -> None:
    plain, other = Image.open(io.BytesIO(bkc)), Image.open(io.BytesIO(bkc))
    other.decode_options = bkcodec.DecodeOptions(steps=2, seed=3)
    expected = bkcodec.decode(bkc, other.decode_options)
    assert np.array_equal(np.asarray(other), np.asarray(expected))
    assert not np.array_equal(np.asarray(plain), np.asarray(expected))


def test_metadata_of_another_type_are_refused(small: Image.Image, tmp_path: Path) -> None:
    for name in ("icc_profile", "exif", "xmp"):
        with pytest.raises(TypeError, match=f"{name} is bytes, not str"):
            small.save(tmp_path / "a.bkc", **{name: "text"})
    small.save(tmp_path / "a.bkc", icc_profile=None, exif=None)


def test_a_folder_that_is_missing_is_not_made(small: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        small.save(tmp_path / "no" / "a.bkc")
    assert not (tmp_path / "no").exists()
