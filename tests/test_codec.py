from __future__ import annotations

import io
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import psnr
from PIL import Image

import bkcodec
import bkcodec.pillow_plugin
from bkcodec import DecodeOptions, EncodeOptions, Limits
from bkcodec.codec import Codec
from bkcodec.container import Container, container_from_bytes, container_to_bytes
from bkcodec.errors import (
    FormatError,
    InputError,
    LimitError,
    TargetError,
    UnsupportedError,
    UsageError,
)
from bkcodec.machine import out_of_memory
from bkcodec.options import Backbone


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (15, 17), (16, 16), (33, 47), (130, 87)]
)
@pytest.mark.parametrize("quality", [0, 50, 100])
def test_any_size(small: Image.Image, size: tuple[int, int], quality: float) -> None:
    image = small.resize(size)
    decoded = bkcodec.decode(bkcodec.encode(image, EncodeOptions(quality=quality)))
    assert decoded.size == size and decoded.mode == "RGB"
    assert psnr(image, decoded) > (13 if quality == 0 else 17 if quality == 50 else 24)


def test_the_photo_survives(lake: Image.Image, codec: Codec) -> None:
    low, high = (codec.encode(lake, EncodeOptions(quality=q)) for q in (20, 90))
    assert len(low) < 768 * 512 * 0.12 / 8
    assert psnr(lake, codec.decode(low)) > 22
    assert psnr(lake, codec.decode(high)) > 28


def test_bytes_grow_with_quality(lake: Image.Image, codec: Codec) -> None:
    sizes = [len(codec.encode(lake, EncodeOptions(quality=q))) for q in range(0, 101, 10)]
    assert sizes == sorted(set(sizes)) and sizes[-1] > 10 * sizes[0]


def test_modes_alpha_and_metadata_come_back(small: Image.Image) -> None:
    grey = small.convert("L")
    grey.putalpha(Image.linear_gradient("L").resize(small.size))
    grey.info = {"icc_profile": b"profile", "exif": b"exif", "xmp": b"packet"}
    decoded = bkcodec.decode(bkcodec.encode(grey))
    assert decoded.mode == "LA"
    assert np.array_equal(array(decoded)[..., 1], array(grey)[..., 1])
    info = {k: decoded.info[k] for k in ("icc_profile", "xmp")}
    assert info == {"icc_profile": b"profile", "xmp": b"packet"}
    stripped = bkcodec.encode(
        grey, EncodeOptions(strip=frozenset({"icc", "xmp", "exif"}), alpha="drop")
    )
    bare = bkcodec.decode(stripped)
    assert bare.mode == "L" and not {"icc_profile", "exif", "xmp"} & set(bare.info)


def test_file_objects(small: Image.Image) -> None:
    out = io.BytesIO()
    bkcodec.encode_to(small, out)
    out.seek(0)
    assert bkcodec.decode_from(out).size == small.size
    out.seek(0)
    with pytest.raises(LimitError):
        bkcodec.decode_from(out, DecodeOptions(limits=Limits(max_file_bytes=10)))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_targets_are_met_from_below(lake: Image.Image, codec: Codec, share: float) -> None:
    target = int(len(codec.encode(lake, EncodeOptions(quality=70))) * share)
    data = codec.encode(lake, EncodeOptions(target_size=target))
    assert 0.95 * target <= len(data) <= target
    bpp = 8 * target / (768 * 512)
    assert len(codec.encode(lake, EncodeOptions(target_bpp=bpp))) <= target


def test_a_target_runs_the_networks_once(
    lake: Image.Image, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    analyse = codec.encoder.analyse

    def counted(*given: object, **named: object) -> object:
        calls.append(1)
        return analyse(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(codec.encoder, "analyse", counted)
    codec.encode(lake, EncodeOptions(target_size=9000))
    assert len(calls) == 1


def test_an_impossible_target_says_the_smallest(small: Image.Image, codec: Codec) -> None:
    smallest = len(codec.encode(small, EncodeOptions(quality=0)))
    with pytest.raises(TargetError, match=f"smallest file has {smallest} bytes"):
        codec.encode(small, EncodeOptions(target_size=20))


def test_encoding_is_deterministic_over_threads(lake: Image.Image, codec: Codec) -> None:
    before, files = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        files.append(codec.encode(lake))
    torch.set_num_threads(before)
    assert files[0] == files[1]


def test_tiles_change_nothing_to_see(lake: Image.Image, codec: Codec) -> None:
    part = lake.crop((100, 100, 530, 410))
    whole, tiled = (codec.encode(part, EncodeOptions(tile=tile)) for tile in (0, 208))
    assert abs(len(whole) - len(tiled)) <= 8
    one = array(codec.decode(whole, DecodeOptions(tile=0)))
    many = array(codec.decode(whole, DecodeOptions(tile=160)))
    assert np.abs(one - many).max() <= 1
    assert np.abs(one - array(codec.decode(tiled, DecodeOptions(tile=0)))).mean() < 0.05


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "euler", "lcm"])
def test_decoder_controls(bkc: bytes, codec: Codec, scheduler: str) -> None:
    def decode(**options: object) -> np.ndarray:
        return array(codec.decode(bkc, DecodeOptions(scheduler=scheduler, **options)))  # type: ignore[arg-type]

    once = decode(steps=1)
    four = decode(steps=4, seed=1)
    assert np.array_equal(four, decode(steps=4, seed=1))
    assert (four != decode(steps=4, seed=2)).any()
    assert (four != once).any()
    assert np.abs(four - once).mean() < 20  # still the same picture
    far = np.abs(decode(steps=4, realism=0.0) - decode(steps=1, realism=0.0))
    # The other schedulers work in floating point, from the same weights.
    assert far.max() == 0 if scheduler == "ddim" else far.mean() < 0.6
    half, none = decode(steps=1, realism=0.5), decode(steps=1, realism=0.0)
    assert np.abs(once - half).mean() < np.abs(once - none).mean()


def test_one_step_is_closer_than_the_mean_alone(lake: Image.Image, codec: Codec) -> None:
    data = codec.encode(lake, EncodeOptions(quality=30))
    mean = codec.decode(data, DecodeOptions(realism=0.0))
    assert psnr(lake, codec.decode(data)) > psnr(lake, mean) + 0.05


def test_the_seed_in_the_file_counts(bkc: bytes, codec: Codec) -> None:
    seeded = container_to_bytes(replace(container_from_bytes(bkc), seed=9))
    options = DecodeOptions(steps=3)
    assert (array(codec.decode(bkc, options)) != array(codec.decode(seeded, options))).any()
    overruled = array(codec.decode(seeded, DecodeOptions(steps=3, seed=0)))
    assert np.array_equal(array(codec.decode(bkc, options)), overruled)


def test_files_of_other_bundles_are_refused_by_name(bkc: bytes, codec: Codec) -> None:
    foreign = container_to_bytes(
        replace(container_from_bytes(bkc), fingerprint=b"\xde\xad\xbe\xef")
    )
    for decode in (bkcodec.decode, codec.decode):
        with pytest.raises(UnsupportedError, match="deadbeef"):
            decode(foreign)
    with pytest.raises(UnsupportedError, match="deadbeef"):
        bkcodec.decode(foreign, DecodeOptions(model_path="lite"))
    with pytest.raises(UnsupportedError, match="no-such-bundle"):
        Codec("no-such-bundle")
    with pytest.raises(FormatError, match="stride 8"):
        bkcodec.decode(container_to_bytes(replace(container_from_bytes(bkc), stride=8)))


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 101},
        {"quality": 1, "target_bpp": 1.0},
        {"quality": 0, "target_size": 6000},
        {"tile": -5},
        {"device": "tpu"},
        {"target_size": 0},
        {"effort": 10},
        {"strip": frozenset({"everything"})},
        {"alpha": "nocolour"},
        {"timeout": -1},
        {"quality": float("nan")},
        {"target_bpp": float("inf")},
    ],
)
def test_bad_encode_options_cannot_be_built(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        EncodeOptions(**options)


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"steps": 51}, {"scheduler": "heun"}, {"realism": 1.5}, {"seed": -1}],
)
def test_bad_decode_options_cannot_be_built(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DecodeOptions(**options)


def test_missing_devices_are_named() -> None:
    if torch.backends.mps.is_available():
        assert Codec("lite", "mps").device == "mps"
    else:
        with pytest.raises(UnsupportedError, match="device mps"):
            Codec("lite", "mps")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
def test_out_of_memory_says_what_helps(error: Exception) -> None:
    with pytest.raises(LimitError, match="out of memory. Use less"), out_of_memory("Use less."):
        raise error
    with pytest.raises(RuntimeError, match="shape"), out_of_memory("Use less."):
        raise RuntimeError("shape")


def test_a_word_with_alloc_in_it_is_not_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="preallocated"), out_of_memory("Use less."):
        raise RuntimeError("sizes of a preallocated buffer differ")
    with pytest.raises(LimitError), out_of_memory("Use less."):
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")


def test_limits_and_backbones_are_valid_once_built() -> None:
    with pytest.raises(UsageError, match="max_pixels -1"):
        Limits(max_pixels=-1)
    with pytest.raises(UsageError, match="unet 'none': not one of auto, own, bk-sdm"):
        Backbone(unet="none")


def test_a_picture_that_is_not_finished_does_not_block_others(
    codec: Codec, lake: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing its rows may fail half-way; somebody may keep the error, and the rows with it."""
    turn = threading.Lock()  # a plain one: taking it twice would block
    monkeypatch.setattr(codec, "turn", lambda: turn)
    container = container_from_bytes(codec.encode(lake))
    rows = codec.decode_rows(container, DecodeOptions(tile=192))
    next(rows.bands)
    assert turn.acquire(blocking=False)
    turn.release()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_decodes_the_same_symbols(lake: Image.Image, codec: Codec) -> None:
    cuda = Codec("lite", "cuda")
    data = cuda.encode(lake)
    assert np.abs(array(cuda.decode(data)) - array(codec.decode(data))).max() <= 2


@pytest.mark.parametrize("options", [{"target_size": 4000}, {"target_bpp": 0.2, "effort": 2}])
def test_a_search_without_time_takes_what_it_has(
    codec: Codec, small: Image.Image, options: dict[str, float]
) -> None:
    data = codec.encode(small, EncodeOptions(timeout=0, **options))  # type: ignore[arg-type]
    assert codec.decode(data).size == small.size
    assert len(data) <= options.get("target_size", 0.2 * small.width * small.height / 8)


@pytest.mark.parametrize(
    ("width", "height"), [(2**26, 1), (1, 2**26), (2**31 - 1, 2**31 - 1), (2**28, 1)]
)
def test_a_line_of_pixels_is_not_cheap(codec: Codec, width: int, height: int) -> None:
    data = container_to_bytes(Container(codec.bundle.fingerprint, width, height, 16, 100, b""))
    for read in (bkcodec.decode, lambda d: bkcodec.info(d, verify=True)):
        with pytest.raises(LimitError):
            read(data)
    assert bkcodec.info(data)["width"] == width


def test_timesteps_beyond_the_schedule_are_refused(bkc: bytes) -> None:
    for timestep in (1000, 10**8):
        hinted = container_to_bytes(replace(container_from_bytes(bkc), timestep=timestep))
        with pytest.raises(FormatError, match="beyond the bundle's schedule"):
            bkcodec.decode(hinted)


def test_odd_images_of_the_api(codec: Codec, bkc: bytes) -> None:
    with pytest.raises(InputError, match="nothing to encode"):
        codec.encode(Image.new("RGB", (0, 3)))
    assert bkcodec.decode(memoryview(bkc)).size == (130, 87)  # type: ignore[arg-type]
