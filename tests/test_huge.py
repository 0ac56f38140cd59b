"""Tiles give the picture of one piece; what is too large for the memory is refused first."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bkcodec import DecodeOptions, EncodeOptions, machine, pillow_plugin
from bkcodec.codec import Codec
from bkcodec.errors import LimitError
from bkcodec.image.opening import open_header
from bkcodec.inspection import info
from bkcodec.models.own.unet import DenoisingUNet
from bkcodec.models.sd.unet import LatentUNet
from bkcodec.models.windows import by_windows
from bkcodec.options import Limits
from bkcodec.tiling import tile_cells


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("tile", [64, 160, 208])
def test_tiles_are_one_piece(codec: Codec, lake: Image.Image, tile: int, steps: int) -> None:
    photo = lake.crop((200, 100, 616, 452))
    data = codec.encode(photo, EncodeOptions(tile=0))
    assert codec.encode(photo, EncodeOptions(tile=tile)) == data
    whole, tiled = (
        np.asarray(codec.decode(data, DecodeOptions(tile=side, steps=steps)), np.int16)
        for side in (0, tile)
    )
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("network", [DenoisingUNet(6, 8), LatentUNet(8)], ids=["own", "sd"])
@pytest.mark.parametrize("texture", [False, True])
def test_a_u_net_sees_no_further_than_its_reach(network: torch.nn.Module, texture: bool) -> None:
    torch.manual_seed(0)
    for parameter in network.parameters():  # no branch is zero any more
        torch.nn.init.normal_(parameter, std=0.3)
    channels = 6 if isinstance(network, DenoisingUNet) else 4
    maps = tuple(torch.randn(1, channels, 96, 140) for _ in range(3))
    for size in ((1, 1), (96, 140)):  # a level for all, and a level map
        conditions = (*maps, torch.randn(1, 64, *size))

        def run(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (network(*parts, texture),)

        def windowed(reach: int) -> torch.Tensor:
            return by_windows(run, conditions, 20, reach, network.align)[0]  # noqa: B023

        with torch.no_grad():
            whole = run(*conditions)[0]
            tiled, short = windowed(network.reach), windowed(network.reach // 4)
        scale = whole.abs().mean()
        assert (whole - tiled).abs().max() < 5e-4 * scale < (whole - short).abs().max()


def test_what_needs_more_memory_than_there_is(
    codec: Codec,
    lake: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = codec.encode(lake)
    monkeypatch.setattr(machine, "available", lambda: 10**6)
    works = (
        lambda: codec.encode(lake),
        lambda: codec.decode(data),
        lambda: info(data, verify=True),
        lambda: pillow_plugin.BkcImageFile(io.BytesIO(data)).load(),
    )
    for work in works:
        with pytest.raises(LimitError, match=r"needs about \d+ MB of memory, 1 MB are free"):
            work()
    lake.save(tmp_path / "lake.png")
    (tmp_path / "lake.bkc").write_bytes(data)
    for *command, source, out in (
        ("encode", "lake.png", "out.bkc"),
        ("decode", "lake.bkc", "out.png"),
        ("decode", "lake.bkc", "out.jpg"),
    ):
        assert run(*command, tmp_path / source, "-o", tmp_path / out) == 6
        assert "MB of memory" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_memory_is_checked_before_pixels_are_decoded(
    lake: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = io.BytesIO()
    lake.save(out, "PNG")
    torn = tmp_path / "torn.png"
    torn.write_bytes(out.getvalue()[:2000])  # decoding it fails
    assert run("encode", torn) == 3
    assert "damaged PNG image" in capsys.readouterr().err
    monkeypatch.setattr(machine, "available", lambda: 10**6)
    assert run("encode", torn) == 6
    assert "MB of memory" in capsys.readouterr().err


def test_estimates_grow_with_the_work() -> None:
    symbols, pixels = 224 * 4000, 1024 * 1000
    small = machine.estimate(symbols, pixels)
    assert small < machine.estimate(100 * symbols, 1536**2) < 100 * small
    assert machine.estimate(symbols, pixels, steps=4) > small
    assert machine.estimate(symbols, pixels, beside=7 * pixels) == small + 7 * pixels
    assert machine.estimate(symbols) < small


def test_limits_of_the_system_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    free = machine.available()
    assert free > 10**8
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 3000\ninactive_file 700\n")
    assert machine._cgroup_left() == []
    (tmp_path / "memory.max").write_text("9000\n")
    assert machine.available() == 4700
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    assert machine.available() == 0


def test_pixel_limits_of_the_command_line(
    run: Callable[..., int], lake: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "lake.png"
    lake.save(photo)
    assert run("encode", photo, "--max-pixels", 1000) == 6
    assert "the limit is 1000. Raise it with --max-pixels" in capsys.readouterr().err
    assert run("encode", photo, "--max-pixels", 0) == 0


def test_pillows_limit_does_not_matter_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("1", (3000, 3000)).save(out, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_header(io.BytesIO(out.getvalue())).size == (3000, 3000)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(LimitError):
        open_header(io.BytesIO(out.getvalue()), Limits(max_pixels=100))


Run = Callable[..., int]


def test_a_line_of_pixels_is_tiled_and_counted_in_cells(run: Run, here: Path) -> None:
    Image.new("L", (1, 70_000), 90).save("thin.png")
    assert run("encode", "thin.png", "--max-pixels", 100_000) == 6  # as decoding it would be
    assert tile_cells(None, 1, 300_000, 16) and not tile_cells(None, 1, 200_000, 16)
    assert run("encode", "thin.png") == 0 and run("decode", "thin.bkc", "-o", "out.png") == 0
