from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bkcodec

wds = pytest.importorskip("webdataset", reason="webdataset is not installed")

from bkcodec.integrations.webdataset import decoder  # noqa: E402

# WebDataset leaves its shards to the garbage collector to close.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io\.FileIO.*photos-000\.tar:"
    "pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def shard(bkc: bytes, small: Image.Image, codec: bkcodec.Codec, tmp_path: Path) -> str:
    png = io.BytesIO()
    small.save(png, "PNG")
    grey = codec.encode(small.convert("LA"))
    contents = {"a.bkc": bkc, "a.cls": b"3", "b.BKC": grey, "b.cls": b"4", "c.png": png.getvalue()}
    with tarfile.open(tmp_path / "photos-000.tar", "w") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(tmp_path / "photos-000.tar")


def decoded(shard: str, *handlers: object) -> list[dict[str, object]]:
    return list(wds.WebDataset(shard, shardshuffle=False).decode(*handlers))


def test_members_become_arrays(shard: str, bkc: bytes, small: Image.Image) -> None:
    first, second, third = decoded(shard, decoder(), "rgb8")
    expected = np.asarray(bkcodec.decode(bkc))
    assert np.array_equal(first["bkc"], expected) and first["cls"] == 3
    assert second["bkc"].shape == expected.shape and second["bkc"].dtype == np.uint8  # type: ignore[attr-defined]
    assert np.array_equal(third["png"], np.asarray(small))  # type: ignore[arg-type]


def test_members_become_what_other_images_become(shard: str, bkc: bytes) -> None:
    image = bkcodec.decode(bkc)
    (tensor, *_), (floats, *_), (picture, grey, _) = (
        [sample.get("bkc") for sample in decoded(shard, decoder(spec), spec)]
        for spec in ("torchrgb8", "rgb", "pil")
    )
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.uint8
    assert np.array_equal(tensor.permute(1, 2, 0), np.asarray(image))
    assert isinstance(floats, np.ndarray) and floats.dtype == np.float32
    assert np.array_equal(floats, np.asarray(image).astype(np.float32) / 255)
    assert isinstance(picture, Image.Image) and picture.tobytes() == image.tobytes()
    assert isinstance(grey, Image.Image) and grey.mode == "RGB"
    with pytest.raises(ValueError, match="imagespec"):
        decoder("nonsense")


def test_options_count_and_handlers_travel(bkc: bytes) -> None:
    options = bkcodec.DecodeOptions(steps=2, seed=3)
    handler = pickle.loads(pickle.dumps(decoder("rgb8", options)))
    assert np.array_equal(handler(".left.bkc", bkc), np.asarray(bkcodec.decode(bkc, options)))
    assert handler(".png", bkc) is None
    with pytest.raises(bkcodec.FormatError):
        handler(".bkc", bkc[:-1])
