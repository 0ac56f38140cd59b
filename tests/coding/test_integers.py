"""A codec on integer networks: the same files and the same pixels, whatever runs them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import integer_bundle

from bkcodec.codec import Codec
from bkcodec.coding.integers import IntegerCoder
from bkcodec.container import container_from_bytes
from bkcodec.engine import runtime
from bkcodec.engine.reference import ReferenceNetwork
from bkcodec.errors import UnsupportedError
from bkcodec.image.reading import picture_from_image
from bkcodec.options import DecodeOptions, EncodeOptions
from bkcodec.train.integers import integer_arrays


@pytest.fixture(scope="module")
def bundle(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return integer_bundle(lake, tmp_path_factory.mktemp("bundle") / "integers.safetensors")


@pytest.fixture(scope="module")
def integer_codec(bundle: Path) -> Codec:
    return Codec(bundle, "cpu")


def pixels(codec: Codec, data: bytes, **options: object) -> np.ndarray:
    return np.asarray(codec.decode(data, DecodeOptions(**options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (130, 87), (400, 300)])
def test_tiles_change_nothing(
    integer_codec: Codec, lake: Image.Image, size: tuple[int, int]
) -> None:
    photo = lake.crop((100, 100, 100 + size[0], 100 + size[1]))
    data = integer_codec.encode(photo, EncodeOptions(tile=0))
    assert integer_codec.encode(photo, EncodeOptions(tile=96)) == data
    whole = pixels(integer_codec, data, tile=0)
    assert whole.shape == (size[1], size[0], 3)
    for tile in (64, 160):
        assert np.array_equal(pixels(integer_codec, data, tile=tile), whole)


def test_the_reference_makes_the_same_files_and_pixels(
    integer_codec: Codec, bundle: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = np.array([[20, -30]], np.int16).repeat(2, axis=0)  # 130 x 87: 6 x 9 cells
    offsets = np.concatenate([offsets, offsets[:, :1]], axis=1)
    picture = picture_from_image(small)
    plain = integer_codec.encode(small)
    mapped = integer_codec.encode_picture(picture, EncodeOptions(), offsets).data
    expected = [pixels(integer_codec, data) for data in (plain, mapped)]
    monkeypatch.setattr(runtime, "open_network", ReferenceNetwork)
    slow = Codec(bundle, "cpu")
    slow.coder = IntegerCoder(runtime.Runtime(slow.bundle.integers), slow._floats)
    assert slow.encode(small) == plain
    assert slow.encode_picture(picture, EncodeOptions(), offsets).data == mapped
    for data, picture_of_it in zip((plain, mapped), expected, strict=True):
        assert np.array_equal(pixels(slow, data), picture_of_it)


CODE = """
import hashlib, sys, torch, numpy as np
from PIL import Image
from bkcodec import Codec
torch.set_num_threads(int(sys.argv[3]))
codec, photo = Codec(sys.argv[1], "cpu"), Image.open(sys.argv[2]).crop((9, 9, 410, 300))
data = codec.encode(photo)
print(hashlib.sha256(data + np.asarray(codec.decode(data)).tobytes()).hexdigest())
"""


def test_other_processes_agree(integer_codec: Codec, bundle: Path, lake: Image.Image) -> None:
    photo = bundle.with_name("photo.png")
    lake.save(photo)
    data = integer_codec.encode(lake.crop((9, 9, 410, 300)))
    digest = hashlib.sha256(data + pixels(integer_codec, data).tobytes()).hexdigest()
    for threads in ("1", "3"):
        command = [sys.executable, "-c", CODE, str(bundle), str(photo), threads]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == digest


def test_close_to_the_float_networks(
    integer_codec: Codec, lake: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the timestep that --effort chooses; several steps are those of the floats."""
    photo = lake.crop((200, 180, 424, 340))
    data = integer_codec.encode(photo, EncodeOptions(quality=60, effort=1))
    decoded, several = (pixels(integer_codec, data, steps=n).astype(int) for n in (1, 3))
    with torch.no_grad():
        monkeypatch.setattr(integer_codec, "coder", integer_codec._floats())
        assert np.array_equal(pixels(integer_codec, data, steps=3), several)
        floats = pixels(integer_codec, data).astype(int)
        assert np.abs(decoded - floats).max() <= 3
        other = container_from_bytes(integer_codec.encode(photo, EncodeOptions(quality=60)))
    size = len(container_from_bytes(data).z)
    assert abs(len(other.z) - size) < 0.02 * size


def test_floats_of_integers_give_the_same_integers(integer_codec: Codec) -> None:
    arrays = integer_codec.bundle.integers
    again = integer_arrays(integer_codec.model)
    assert arrays.keys() == again.keys()
    for name in (k.removesuffix(".shift") for k in arrays if k.endswith(".shift")):
        for kind in ("weight", "bias", "exponent"):
            scale = np.exp2(arrays[f"{name}.shift"].astype(float) - again[f"{name}.shift"])
            if kind == "exponent":
                scale = np.ones(1)
            one, other = arrays[f"{name}.{kind}"], again[f"{name}.{kind}"]
            assert np.array_equal((other.T * scale).T, one), (name, kind)


def test_arrays_that_do_not_fit_are_refused(bundle: Path, integer_codec: Codec) -> None:
    arrays = integer_codec.bundle.integers
    with pytest.raises(UnsupportedError, match="integer networks do not fit"):
        runtime.Runtime({k: v for k, v in arrays.items() if k != "h_s.mean.bias"})
    heavy = arrays | {"h_s.stem.weight": np.full_like(arrays["h_s.stem.weight"], 127)}
    with pytest.raises(UnsupportedError, match="could reach"):
        runtime.Runtime(heavy)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["diffusers"] = None  # importing them fails
sys.argv = ["bkcodec", *sys.argv[1:]]
from bkcodec import cli
cli.run()
"""


def test_no_pytorch_is_needed(bundle: Path, lake: Image.Image, tmp_path: Path) -> None:
    lake.crop((0, 0, 200, 100)).save(tmp_path / "photo.png")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    model = ("-m", str(bundle))
    for arguments in (
        ("encode", "photo.png", *model, "--verify"),
        ("decode", "photo.bkc", *model, "-o", "back.png"),
        ("info", "photo.bkc", *model, "--verify"),
        ("encode", "photo.png", *model, "--target-size", "2k", "-o", "small.bkc", "-j", "2"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    data = (tmp_path / "photo.bkc").read_bytes()
    with Image.open(tmp_path / "back.png") as image:
        assert np.array_equal(np.asarray(image), pixels(Codec(bundle, "cpu"), data))
    several = run("decode", "photo.bkc", *model, "--steps", "3", "-o", "three.png")
    assert several.returncode == 5 and "torch" in several.stderr
    assert len(several.stderr.splitlines()) == 1
