"""The gradient search: better by the decoder's own measure, or the plain file."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import bkcodec
from bkcodec import EncodeOptions
from bkcodec.codec import Codec
from bkcodec.coding import effort as effort_module
from bkcodec.coding import latent
from bkcodec.coding.effort import Effort, Photo
from bkcodec.coding.latent import CountedDensity, Goal, LatentSearch
from bkcodec.metrics import ms_ssim, psnr


@pytest.fixture(scope="module")
def photo(lake: Image.Image) -> Image.Image:
    return lake.crop((0, 0, 176, 168))


def decoded_psnr(photo: Image.Image, data: bytes) -> float:
    return psnr(np.asarray(photo), np.asarray(bkcodec.decode(data)))


def test_a_search_gives_smaller_files_of_the_same_quality(photo: Image.Image) -> None:
    plain = {q: bkcodec.encode(photo, EncodeOptions(quality=q)) for q in range(46, 76, 2)}
    sizes = [math.log(len(data)) for data in plain.values()]
    values = [decoded_psnr(photo, data) for data in plain.values()]
    found = bkcodec.encode(photo, EncodeOptions(quality=60, effort=2, tune="psnr"))
    assert found != plain[60] and bkcodec.info(found)["quality"] == 60
    same = math.exp(np.interp(decoded_psnr(photo, found), values, sizes))
    assert len(found) < 0.98 * same
    again = bkcodec.encode(photo, EncodeOptions(quality=60, effort=2, tune="psnr"))
    assert again == found, "the same file again"


def test_the_state_of_pytorch_around_it_does_not_matter(photo: Image.Image) -> None:
    options = EncodeOptions(quality=40, effort=1)
    plain = bkcodec.encode(photo, options)
    torch.manual_seed(1)
    expected = torch.rand(1)
    contexts = (
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
        torch.device("meta"),
    )
    for around in contexts:
        torch.manual_seed(1)
        with around:
            assert Codec().encode(photo, options) == plain
        assert torch.equal(torch.rand(1), expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert Codec().encode(photo, options) == plain
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_size_is_never_exceeded(photo: Image.Image) -> None:
    plain = bkcodec.encode(photo, EncodeOptions(target_size=2000))
    found = bkcodec.encode(photo, EncodeOptions(target_size=2000, effort=2, tune="psnr"))
    assert len(found) <= 2000
    assert decoded_psnr(photo, found) >= decoded_psnr(photo, plain)
    hurried = EncodeOptions(target_size=2000, effort=9, timeout=0.0)
    assert len(bkcodec.encode(photo, hurried)) <= 2000


def test_a_search_ends_in_time(photo: Image.Image) -> None:
    bkcodec.encode(photo, EncodeOptions(effort=1))  # everything is loaded
    began = time.monotonic()
    bkcodec.encode(photo, EncodeOptions(quality=40, effort=9, timeout=2.0))
    assert time.monotonic() - began < 20  # some steps, not 240


def test_what_is_not_searched_in_time_stays(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "WHOLE", 16)
    monkeypatch.setattr(latent, "CORE", 6)
    codec, rgb = Codec(), np.asarray(photo)
    _, z = codec.encoder.analyse(rgb, None)
    start = codec.coder.encoder.scaled(z, 100)  # type: ignore[union-attr]
    search = LatentSearch(codec.model, codec.bundle.prior)  # type: ignore[arg-type]
    symbols = search.search(start, rgb, 100, Goal(0.0, 0.01), 9, time.monotonic())
    assert np.array_equal(symbols, np.rint(start))


def test_windows_of_large_pictures_fit_together(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "WHOLE", 16)
    monkeypatch.setattr(latent, "CORE", 6)
    seen: list[tuple[float, float | None]] = []
    monkeypatch.setattr(latent, "CHECK", 1)
    codec = Codec()
    rgb = np.asarray(photo)
    _, z = codec.encoder.analyse(rgb, None)
    start = codec.coder.encoder.scaled(z, 100)  # type: ignore[union-attr]
    search = LatentSearch(codec.model, codec.bundle.prior)  # type: ignore[arg-type]
    symbols = search.search(
        start, rgb, 100, Goal(0.0, 0.01), 1, tell=lambda *said: seen.append(said)
    )
    shares = [share for share, _ in seen]
    assert symbols.shape == start.shape and shares == sorted(shares) and shares[-1] > 0.75
    assert all(saved is not None and abs(saved) < 1 for _, saved in seen)
    assert (symbols != np.rint(start)).any() and abs(symbols - start).max() < 2


@pytest.mark.parametrize("size", [None, 400])
def test_a_search_follows_regions(photo: Image.Image, size: int | None) -> None:
    options = EncodeOptions(
        quality=None if size else 40.0,
        target_size=size,
        effort=1,
        regions=(bkcodec.Region(0, 0, 64, 64, 20),),
    )
    data = bkcodec.encode(photo, options)
    said = bkcodec.info(data)
    assert said["level_map_bytes"] > 0 and len(data) <= (size or 10**6)
    plain = bkcodec.encode(photo, EncodeOptions(quality=said["quality"]))
    better, same = (
        psnr(np.asarray(photo)[:64, :64], np.asarray(bkcodec.decode(d))[:64, :64])
        for d in (data, plain)
    )
    assert better > same


def test_the_plain_file_stays_where_none_is_better() -> None:
    rgb = np.zeros((32, 32, 3), np.uint8)

    class Worse:
        def search(self, start: np.ndarray, *_: object) -> np.ndarray:
            return start.astype(np.int16) + 100

    files = Photo(
        rgb,
        lambda level: level,
        lambda level: np.full((1, 2, 2), float(level), np.float32),
        lambda symbols, level: bytes(100 + int(symbols.max())),
        len,
        lambda file, level: np.full_like(rgb, max(0, 250 - len(file))),
    )
    effort = Effort(Worse(), files, Goal(0.0), 1)  # type: ignore[arg-type]
    plain = bytes(200)
    assert effort.at_quality(plain, 100) is plain
    assert effort.at_size(plain, 100, 210) is plain
    assert effort.at_value((plain, 30.0), 100, 29.0, lambda file: 40.0) == (plain, 30.0)
    assert effort_module.TRIES > 1


def test_counted_tables_are_met_at_whole_symbols() -> None:
    codec = Codec()
    tables = codec.bundle.prior.first  # type: ignore[union-attr]
    density = CountedDensity(tables, 100)
    table = tables.level(100).channels[0]
    weights = np.asarray(table.weights, float)
    symbols = torch.arange(len(weights), dtype=torch.float32) + table.low
    z = torch.zeros(1, len(density.low), 1, len(weights)) + symbols
    step = torch.ones(1, len(density.low), 1, 1)
    expected = -np.log2(weights / weights.sum())
    assert np.allclose(density.bits(z, step)[0, 0, 0].numpy(), expected, atol=1e-5)
    between = density.bits(z + 0.5, step)[0, 0, 0, :-1].numpy()
    assert np.allclose(between, (expected[1:] + expected[:-1]) / 2, atol=1e-4)


def test_a_value_of_a_metric_is_reached_with_fewer_bytes(photo: Image.Image) -> None:
    plain = bkcodec.encode(photo, EncodeOptions(target="psnr=40"))
    found = bkcodec.encode(photo, EncodeOptions(target="psnr=40", effort=2, tune="psnr"))
    assert decoded_psnr(photo, found) >= 40 and len(found) < 0.98 * len(plain)
    hurried = EncodeOptions(target="psnr=40", effort=9, timeout=0.0)
    assert decoded_psnr(photo, bkcodec.encode(photo, hurried)) >= 40


def test_a_search_by_lpips(photo: Image.Image, lpips_file: Path, tmp_path: Path) -> None:
    """Weights that see nothing change nothing; others do."""
    blind = tmp_path / "blind.safetensors"
    save_file({k: v * ("lin" not in k) for k, v in load_file(lpips_file).items()}, blind)
    files = [
        bkcodec.encode(photo, EncodeOptions(effort=1, tune=tune, lpips=path))
        for tune, path in (("balanced", None), ("lpips", blind), ("lpips", lpips_file))
    ]
    assert files[0] == files[1] != files[2]


def test_tunes_are_checked() -> None:
    for wrong in ({"tune": "lpips"}, {"lpips": "weights.safetensors"}):
        with pytest.raises(bkcodec.UsageError, match="weights"):
            EncodeOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(bkcodec.UsageError, match="tune"):
        EncodeOptions(tune="vmaf")
    with pytest.raises(bkcodec.UsageError, match="effort"):
        EncodeOptions(effort=10)


def test_large_pictures_are_compared_in_squares() -> None:
    one = np.random.default_rng(0).integers(0, 256, (1600, 1700, 3)).astype(np.uint8)
    other = one.copy()
    assert effort_module._in_squares(ms_ssim, one, other) == pytest.approx(1)
    other[600:700, 600:1000] = 0  # in the square in the middle
    assert effort_module._in_squares(ms_ssim, one, other) < 0.999
