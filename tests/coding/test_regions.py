"""Regions and grey maps: which blocks they move, and what a picture gains there."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bkcodec.codec import Codec
from bkcodec.coding.regions import mapped, offsets_of
from bkcodec.errors import UsageError
from bkcodec.image.reading import picture_from_image
from bkcodec.inspection import drawn, info
from bkcodec.metrics import psnr
from bkcodec.options import EncodeOptions, Region

SIZE = (300, 200)  # five by four blocks, the last ones cut


def offsets(size: tuple[int, int] = SIZE, **options: object) -> np.ndarray:
    found = offsets_of(EncodeOptions(**options), SIZE, size, 16)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_region_is_written_as_people_do() -> None:
    assert Region.parse("10,20,30,40") == Region(10, 20, 30, 40, 30)
    assert Region.parse("10, 20, 30, 40:+7.5") == Region(10, 20, 30, 40, 7.5)
    assert Region.parse("0,0,1,1:-12") == Region(0, 0, 1, 1, -12)
    for text in (
        "",
        "1,2,3",
        "1,2,3,4,5",
        "a,b,c,d",
        "1,2,0,4",
        "-1,2,3,4",
        "1,2,3,4:+101",
        "1,2,3,4:",
    ):
        with pytest.raises(UsageError, match="region"):
            Region.parse(text)


def test_options_say_what_they_need() -> None:
    for options in ({"regions": ((1, 2, 3, 4),)}, {"quality_map": "mask.png"}):
        with pytest.raises(UsageError, match="not a"):
            EncodeOptions(**options)  # type: ignore[arg-type]


def test_all_blocks_that_a_region_touches_are_its_own() -> None:
    whole = offsets(regions=(Region(63, 64, 2, 64, 10),))
    assert whole.tolist() == [[0] * 5, [20, 20, 0, 0, 0], [0] * 5, [0] * 5]
    assert offsets(regions=(Region(299, 199, 1, 1, -5),))[3].tolist() == [0, 0, 0, 0, -10]
    both = offsets(regions=(Region(0, 0, 300, 200, 10), Region(70, 70, 10, 10, -20)))
    assert both[1].tolist() == [20, -40, 20, 20, 20]


def test_a_region_moves_along_when_a_picture_is_reduced() -> None:
    half = offsets((150, 100), regions=(Region(128, 128, 128, 64, 10),))
    assert half.tolist() == [[0, 0, 0], [0, 20, 0]]


@pytest.mark.parametrize("region", [(300, 0, 1, 1), (0, 200, 1, 1), (299, 0, 2, 1), (0, 0, 1, 201)])
def test_a_region_outside_is_refused(codec: Codec, region: tuple[int, int, int, int]) -> None:
    options = EncodeOptions(regions=(Region(*region),))
    with pytest.raises(UsageError, match="reaches beyond the picture of 300 x 200"):
        codec.encode(Image.new("RGB", SIZE), options)


def test_a_grey_map_is_scaled_and_averaged() -> None:
    grey = np.full((4, 5), 128, np.uint8)
    grey[1, 2], grey[3, 4] = 148, 98
    blocks = Image.fromarray(grey).resize((320, 256), Image.Resampling.NEAREST)
    exact = offsets((320, 256), quality_map=blocks)
    assert exact[1, 2] == 20 and exact[3, 4] == -30 and np.count_nonzero(exact) == 2
    small = offsets((320, 256), quality_map=Image.fromarray(grey))
    assert np.array_equal(small, exact)
    sum_of_both = offsets((320, 256), quality_map=blocks, regions=(Region(0, 0, 300, 200, 5),))
    assert sum_of_both[1, 2] == 30 and sum_of_both[0, 0] == 10


def test_levels_stay_on_the_scale() -> None:
    white = offsets(quality_map=Image.new("L", (1, 1), 255), regions=(Region(0, 0, 300, 200, 90),))
    assert set(white.flat) == {200}
    levels, payload = mapped(150, white, (13, 19))
    assert isinstance(levels, np.ndarray) and set(levels.flat) == {200} and payload
    assert mapped(200, white, (13, 19)) == (200, None)  # nothing is left to say


def test_a_map_that_changes_nothing_is_not_in_the_file(codec: Codec, lake: Image.Image) -> None:
    image = lake.crop((0, 0, 200, 100))
    plain = codec.encode(image, EncodeOptions(quality=40))
    grey = Image.new("L", (7, 7), 128)
    assert codec.encode(image, EncodeOptions(quality=40, quality_map=grey)) == plain
    assert info(plain)["quality_offsets"] is None


@pytest.mark.parametrize("kind", ["target_size", "target"])
def test_a_region_of_a_tenth_gains_two_decibels(codec: Codec, lake: Image.Image, kind: str) -> None:
    """At the same size of file; and a target for the whole picture is met with regions, too."""
    picture, place = picture_from_image(lake), np.s_[150:314, 300:540]
    plain = codec.encode_picture(picture, EncodeOptions(quality=40))
    regions = (Region(300, 150, 240, 164),)
    if kind == "target":
        better = codec.encode_picture(picture, EncodeOptions(target="psnr=27", regions=regions))
        assert better.reached is not None and 27 <= better.reached < 27.2
        assert better.container.level_map is not None
        return
    better = codec.encode_picture(picture, EncodeOptions(target_size=len(plain), regions=regions))
    before, after = (np.asarray(codec.decode(e.data)) for e in (plain, better))
    gain = psnr(picture.rgb[place], after[place]) - psnr(picture.rgb[place], before[place])
    assert len(better) <= len(plain) and gain > 2


def test_offsets_as_a_small_picture() -> None:
    assert drawn([[0.0, 20.0], [-7.5, 0.2]]) == ["  . +20", " -8   ."]
    wide = drawn([[10.0] * 40] * 6)
    assert len(wide) == 2 and all(len(row.split()) == 14 for row in wide)
    assert drawn([]) == []
