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
from small_prior import draw, integer_prior, random_network

from bkcodec import tiling
from bkcodec.codec import Codec
from bkcodec.coding.integers import Belief, IntegerCoder
from bkcodec.container import container_from_bytes
from bkcodec.engine import runtime
from bkcodec.engine.reference import ReferenceNetwork
from bkcodec.engine.sampling import noise
from bkcodec.errors import UnsupportedError
from bkcodec.image.reading import picture_from_image
from bkcodec.inspection import read_symbols
from bkcodec.models import denoising
from bkcodec.options import DecodeOptions, EncodeOptions
from bkcodec.prior import exact, walk
from bkcodec.train.integers import integer_arrays


@pytest.fixture(scope="module")
def bundle(lake: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return integer_bundle(lake, tmp_path_factory.mktemp("bundle") / "integers.safetensors")


@pytest.fixture(scope="module")
def integer_codec(bundle: Path) -> Codec:
    return Codec(bundle, "cpu")


def pixels(codec: Codec, data: bytes, **options: object) -> np.ndarray:
    return np.asarray(codec.decode(data, DecodeOptions(**options)))  # type: ignore[arg-type]


WAYS = ({}, {"realism": 0.3}, {"steps": 3}, {"steps": 2, "realism": 0.7})


@pytest.mark.parametrize("size", [(1, 1), (130, 87), (400, 300)])
def test_tiles_change_nothing(
    integer_codec: Codec, lake: Image.Image, size: tuple[int, int]
) -> None:
    photo = lake.crop((100, 100, 100 + size[0], 100 + size[1]))
    data = integer_codec.encode(photo, EncodeOptions(tile=0))
    assert integer_codec.encode(photo, EncodeOptions(tile=96)) == data
    for way in WAYS:
        whole = pixels(integer_codec, data, tile=0, **way)
        assert whole.shape == (size[1], size[0], 3)
        for tile in (64, 160):
            assert np.array_equal(pixels(integer_codec, data, tile=tile, **way), whole)


@pytest.mark.parametrize("size", [(1200, 130), (210, 900)])
def test_bands_of_large_pictures_change_nothing(
    integer_codec: Codec, lake: Image.Image, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = lake.resize(size)
    whole = integer_codec.encode(photo)
    picture = pixels(integer_codec, whole)
    streams: list[str] = []
    original = runtime.Runtime.stream

    def stream(self: runtime.Runtime, name: str) -> object:
        streams.append(name)
        return original(self, name)

    monkeypatch.setattr(runtime.Runtime, "stream", stream)
    monkeypatch.setattr(tiling, "AUTO_PIXELS", 1000)
    monkeypatch.setattr(tiling, "AUTO_TILE", 96)
    assert integer_codec.encode(photo) == whole
    assert np.array_equal(pixels(integer_codec, whole), picture)
    assert streams == ["analysis", "synthesis"]


def test_the_reference_makes_the_same_files_and_pixels(
    integer_codec: Codec, bundle: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = np.array([[20, -30]], np.int16).repeat(2, axis=0)  # 130 x 87: 6 x 9 cells
    offsets = np.concatenate([offsets, offsets[:, :1]], axis=1)
    picture = picture_from_image(small)
    files = [
        integer_codec.encode(small),
        integer_codec.encode_picture(picture, EncodeOptions(), offsets).data,
    ]
    monkeypatch.setattr(
        runtime, "open_network", lambda program, *_, **__: ReferenceNetwork(program)
    )
    slow = Codec(bundle, "cpu")
    slow.coder = IntegerCoder(runtime.Runtime(slow.bundle.integers), slow._floats)
    assert slow.encode(small) == files[0]
    assert slow.encode_picture(picture, EncodeOptions(), offsets).data == files[1]
    for data in files:
        for way in WAYS:
            expected = pixels(integer_codec, data, **way)
            assert np.array_equal(pixels(slow, data, **way), expected)


def test_without_onnx_runtime_numpy_does_the_same(
    integer_codec: Codec,
    bundle: Path,
    small: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = integer_codec.encode(small)
    expected = pixels(integer_codec, data)
    for name in ("engine.onnx", "engine.streaming", "prior.graph"):
        monkeypatch.setitem(sys.modules, f"bkcodec.{name}", None)
    monkeypatch.delattr("bkcodec.prior.graph", raising=False)
    walk._engine.cache_clear()
    slow = Codec(bundle, "cpu")
    slow.coder = IntegerCoder(runtime.Runtime(slow.bundle.integers), slow._floats)
    assert slow.encode(small) == data and np.array_equal(pixels(slow, data), expected)
    assert "NumPy does its work, slowly" in caplog.text
    assert slow.coder.runtime.stream("analysis") is None
    prior, drawn = integer_prior(random_network()), draw(0, 5, 6).round().numpy()
    assert prior.level(90).decode(prior.level(90).encode(drawn)[0], 5, 6).shape == drawn.shape
    assert walk._engine() is exact
    walk._engine.cache_clear()


def test_a_gpu_makes_the_same_files_and_pixels(
    integer_codec: Codec, bundle: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code, at least: PyTorch on the CPU stands for it where there is none."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(runtime, "pick_device", lambda name: torch.device("cpu"))
    gpu = Codec(bundle, "cuda")
    assert isinstance(gpu.coder, IntegerCoder) and gpu.device == "cuda"
    data = integer_codec.encode(small)
    assert gpu.encode(small, EncodeOptions(tile=64)) == data
    for way in WAYS:
        expected = pixels(integer_codec, data, **way)
        assert np.array_equal(pixels(gpu, data, tile=64, **way), expected)
    assert gpu.coder.runtime.stream("analysis") is None


def test_the_controls_of_the_decoder(integer_codec: Codec, small: Image.Image) -> None:
    """All realism of one step is what the fused network makes; seeds and steps matter."""
    data = integer_codec.encode(small)
    belief_only, half, all_of_it = (pixels(integer_codec, data, realism=r) for r in (0, 0.5, 1))
    symbols = read_symbols(container_from_bytes(data), integer_codec.bundle)[1]
    assert isinstance(integer_codec.coder, IntegerCoder)
    belief = Belief(integer_codec.coder.runtime, symbols, 100, 0)
    y_hat = belief.denoised(1, 0, None)
    shown = integer_codec.coder.runtime.picture(y_hat, 0.0)[:87, :130]
    assert np.array_equal(shown, all_of_it)
    assert not np.array_equal(belief_only, half) and not np.array_equal(half, all_of_it)
    ways = [{"steps": 2}, {"steps": 3}, {"steps": 3, "seed": 7}, {"steps": 3, "realism": 0.5}]
    several = [pixels(integer_codec, data, **way) for way in ways]
    assert len({p.tobytes() for p in [*several, all_of_it]}) == 5


@pytest.mark.parametrize("timestep", [None, 40])
def test_several_steps_leave_colour_to_the_single_one(
    integer_codec: Codec, small: Image.Image, timestep: int | None
) -> None:
    data = integer_codec.encode(small)
    symbols = read_symbols(container_from_bytes(data), integer_codec.bundle)[1]
    assert isinstance(integer_codec.coder, IntegerCoder)
    networks = integer_codec.coder.runtime
    levels = np.arange(symbols[0].size, dtype=np.uint8).reshape(symbols.shape[1:])
    belief = Belief(networks, symbols, levels, 0)
    single, several = (belief.denoised(steps, 0, timestep) for steps in (1, 3))
    assert np.flatnonzero(networks.is_colour).tolist() == [13, 23]  # of the untrained DCT
    differs = (single != several).any(axis=(1, 2))
    assert np.array_equal(differs, ~networks.is_colour)


CODE = """
import hashlib, sys, torch, numpy as np
from PIL import Image
from bkcodec import Codec
from bkcodec.inspection import read_symbols
from bkcodec.models import denoising
from bkcodec.options import DecodeOptions
torch.set_num_threads(int(sys.argv[3]))
codec, photo = Codec(sys.argv[1], "cpu"), Image.open(sys.argv[2]).crop((9, 9, 410, 300))
data = codec.encode(photo)
digest = hashlib.sha256(data)
for steps in (1, 3):
    digest.update(np.asarray(codec.decode(data, DecodeOptions(steps=steps))).tobytes())
print(digest.hexdigest())
"""


def test_other_processes_agree(integer_codec: Codec, bundle: Path, lake: Image.Image) -> None:
    photo = bundle.with_name("photo.png")
    lake.save(photo)
    data = integer_codec.encode(lake.crop((9, 9, 410, 300)))
    digest = hashlib.sha256(data)
    for steps in (1, 3):
        digest.update(pixels(integer_codec, data, steps=steps).tobytes())
    for threads in ("1", "3"):
        command = [sys.executable, "-c", CODE, str(bundle), str(photo), threads]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == digest.hexdigest()


def whole_noise(shape: tuple[int, ...], seed: int, stream: int, device: object) -> torch.Tensor:
    """The integers' noise, for the floats."""
    del stream, device
    return torch.from_numpy(noise(shape[1:], seed))[None].float()


def test_close_to_the_float_networks(
    integer_codec: Codec, lake: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the timestep that --effort chooses, in several steps, and at another realism."""
    photo = lake.crop((200, 180, 424, 340))
    data = integer_codec.encode(photo, EncodeOptions(quality=60, effort=1))
    decoded = [pixels(integer_codec, data, **way).astype(int) for way in WAYS]
    monkeypatch.setattr(denoising, "philox_noise", whole_noise)
    with torch.no_grad():
        monkeypatch.setattr(integer_codec, "coder", integer_codec._floats())
        floats = [pixels(integer_codec, data, **way).astype(int) for way in WAYS]
        other = container_from_bytes(integer_codec.encode(photo, EncodeOptions(quality=60)))
    for one, another in zip(decoded, floats, strict=True):
        difference = np.abs(one - another)
        assert difference.max() <= 3 and difference.mean() < 0.2
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
        ("decode", "photo.bkc", *model, "--steps", "4", "-o", "four.png"),
        ("info", "photo.bkc", *model, "--verify"),
        ("encode", "photo.png", *model, "--target-size", "2k", "-o", "small.bkc", "-j", "2"),
        ("encode", "photo.png", *model, "--effort", "2", "-o", "searched.bkc"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    data = (tmp_path / "photo.bkc").read_bytes()
    with Image.open(tmp_path / "back.png") as image:
        assert np.array_equal(np.asarray(image), pixels(Codec(bundle, "cpu"), data))
    other = ("--steps", "3", "--scheduler", "euler")
    refused = run("decode", "photo.bkc", *model, *other, "-o", "three.png")
    assert refused.returncode == 5 and "torch" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
