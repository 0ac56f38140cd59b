"""Options that are wrong are refused when they are built, not when they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bkcodec
from bkcodec import DecodeOptions, EncodeOptions, Limits, Region, UsageError

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "50"}, "quality '50': not a number"),
        ({"quality": NAN}, "quality nan: not in 0..100"),
        ({"tile": 64.5}, "tile 64.5: not a whole number"),
        ({"effort": None}, "effort None: not a whole number"),
        ({"effort": True}, "effort True: not a whole number"),
        ({"strip": 5}, "strip 5: not a set"),
        ({"strip": [3]}, "strip 3: not one of"),
        ({"alpha": (1, 2, 3)}, r"alpha \(1, 2, 3\): not a str"),
        ({"target": 3}, "target 3: not a str"),
        ({"target_size": 4.5}, "target_size 4.5: not a whole number"),
        ({"target_size": 0}, "target_size 0: must be above 0"),
        ({"target_bpp": NAN}, "target_bpp nan: not in"),
        ({"timeout": NAN}, "timeout nan: not in"),
        ({"quality_map": 3}, "not a Pillow image"),
        ({"regions": 3}, "not a sequence of Region"),
        ({"regions": [3]}, "region 3: not a Region"),
        ({"model": 3}, "model 3: neither a name nor a path"),
        ({"device": 3}, "device 3: not one of"),
        ({"backbone": "here"}, "backbone 'here': not a Backbone"),
        ({"tune": "psnr"}, "a tune matters to a search"),
    ],
)
def test_wrong_options_of_encoding(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EncodeOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 2.0}, "steps 2.0: not a whole number"),
        ({"steps": None}, "steps None: not a whole number"),
        ({"seed": 1.5}, "seed 1.5: not a whole number"),
        ({"realism": "all"}, "realism 'all': not a number"),
        ({"limits": 5}, "limits 5: not a Limits"),
        ({"model_path": 3}, "model_path 3: not a str"),
        ({"scheduler": None}, "scheduler None: not one of"),
    ],
)
def test_wrong_options_of_decoding(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DecodeOptions(**options)


def test_wrong_regions_and_limits() -> None:
    for numbers in ((NAN, 0, 1, 1), (0, 0, 1.5, 1), (0, 0, 5, 5, NAN)):
        with pytest.raises(UsageError, match="region"):
            Region(*numbers)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_pixels"):
        Limits(max_pixels=-1)


def test_other_ways_to_say_the_same() -> None:
    assert EncodeOptions(strip=["exif"]).strip == frozenset({"exif"})  # type: ignore[arg-type]
    assert EncodeOptions(strip="gps").strip == frozenset({"gps"})  # type: ignore[arg-type]
    assert EncodeOptions(model=Path("lite")) == EncodeOptions()  # type: ignore[arg-type]
    assert EncodeOptions(quality=np.float32(50.5)).level == 101
    assert DecodeOptions(steps=np.int64(2)).steps == 2  # type: ignore[arg-type]


def test_maps_and_photos_that_cannot_be_read(small: Image.Image) -> None:
    closed = small.copy()
    closed.close()
    for grey in (closed, Image.new("LAB", (8, 8))):
        with pytest.raises(UsageError, match="quality_map: cannot be made grey"):
            bkcodec.encode(small, EncodeOptions(quality_map=grey))
    with pytest.raises(bkcodec.InputError, match="closed"):
        bkcodec.encode(closed)
    with pytest.raises(TypeError, match="an array of uint8"):
        bkcodec.encode(np.array(5, np.uint8))
    with pytest.raises(bkcodec.InputError, match=r"nowhere\.png: no such file"):
        bkcodec.encode("nowhere.png")
    with pytest.raises(bkcodec.LimitError):
        bkcodec.encode(np.broadcast_to(np.uint8(3), (400_000, 400_000, 3)))
