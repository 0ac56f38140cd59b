from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bkcodec

datasets = pytest.importorskip("datasets", reason="datasets is not installed")

from bkcodec.integrations.datasets import decode_column, encode_column  # noqa: E402

pytestmark = pytest.mark.slow  # the library is large, and there for the slow tests only
OPTIONS = bkcodec.EncodeOptions(quality=20)


@pytest.fixture
def photos(small: Image.Image, tmp_path: Path) -> Any:
    """Three rows: a path, bytes, and none."""
    small.save(tmp_path / "a.png")
    out = io.BytesIO()
    small.crop((0, 0, 50, 40)).convert("L").save(out, "PNG")
    image = [str(tmp_path / "a.png"), {"bytes": out.getvalue(), "path": None}, None]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": image, "label": [1, 2, 3]}, features=features)


def files(dataset: Any) -> list[Any]:
    return list(dataset.cast_column("image", datasets.Image(decode=False))["image"])


def test_there_and_back(photos: Any, small: Image.Image, tmp_path: Path) -> None:
    encoded = encode_column(photos, "image", OPTIONS)
    assert encoded.features == photos.features and encoded["label"] == photos["label"]
    first, second, third = files(encoded)
    assert first["bytes"] == bkcodec.encode(small, OPTIONS) and first["path"] == "a.bkc"
    assert third is None
    opened = [row["image"] for row in encoded]
    assert [image and (image.format, image.mode) for image in opened[:2]] == [
        ("BKC", "RGB"),
        ("BKC", "L"),
    ]
    back = decode_column(encoded, "image")
    assert files(back)[0]["path"] == "a.png" and files(back)[2] is None
    for file, bkc in zip(files(back)[:2], (first, second), strict=True):
        with Image.open(io.BytesIO(file["bytes"])) as image:
            assert image.format == "PNG"
            assert np.array_equal(np.asarray(image), np.asarray(bkcodec.decode(bkc["bytes"])))


def test_parquet_holds_the_bytes(photos: Any, tmp_path: Path) -> None:
    encoded = encode_column(photos, "image", OPTIONS)
    encoded.to_parquet(tmp_path / "photos.parquet")
    code = """
import sys, datasets, bkcodec.pillow_plugin
places = {"data_files": sys.argv[1], "cache_dir": sys.argv[2]}
rows = datasets.load_dataset("parquet", split="train", **places)
print(rows[0]["image"].format, rows[0]["image"].size, rows[2]["image"])
"""
    command = [sys.executable, "-c", code, tmp_path / "photos.parquet", tmp_path / "cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "BKC (130, 87) None"


def test_streams_and_several_processes(photos: Any) -> None:
    encoded = encode_column(photos, "image", OPTIONS)
    stream = encode_column(photos.to_iterable_dataset(), "image", OPTIONS)
    expected = [image and image.tobytes() for image in encoded["image"]]
    assert [row["image"] and row["image"].tobytes() for row in stream] == expected
    splits = encode_column(datasets.DatasetDict({"train": photos}), "image", OPTIONS)
    assert files(splits["train"]) == files(encoded)
    back = decode_column(stream, "image")
    assert [row["image"] and row["image"].format for row in back] == ["PNG", "PNG", None]
    parallel = encode_column(photos, "image", OPTIONS, num_proc=2, load_from_cache_file=False)
    assert files(parallel) == files(encoded)


def test_what_cannot_be_read_is_an_error(photos: Any) -> None:
    broken = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no photo", "path": None}]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    with pytest.raises(bkcodec.InputError):
        encode_column(broken, "image")
    with pytest.raises(bkcodec.FormatError):
        decode_column(photos, "image")
