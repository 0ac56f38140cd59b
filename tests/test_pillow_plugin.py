from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import bkcodec.pillow_plugin  # noqa: F401 (registers the format)


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
