"""Targets of a metric: what they may be, and the search for the smallest file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bkcodec import metrics
from bkcodec.codec import Codec
from bkcodec.coding import targets
from bkcodec.coding.search import PROBES, smallest
from bkcodec.coding.targets import METRICS, Target
from bkcodec.errors import TargetError, UsageError
from bkcodec.image.reading import picture_from_image
from bkcodec.options import LEVELS, MAX_LEVEL, EncodeOptions

GROWTH = st.lists(st.floats(0, 2), min_size=LEVELS, max_size=LEVELS)
TARGETS = st.floats(0, 100).map(lambda value: Target(METRICS["ssimulacra2"], value))


@pytest.mark.parametrize("metric", METRICS.values())
def test_a_curve_rises(metric: targets.Metric) -> None:
    assert len(metric.curve) == len(targets.LEVELS) and targets.LEVELS[-1] == MAX_LEVEL
    assert all(np.diff(metric.curve) > 0) and metric.curve[-1] <= metric.best


def test_sides_are_those_of_the_metrics() -> None:
    assert METRICS["ms-ssim"].min_side == metrics.MIN_SIDE
    assert METRICS["ssimulacra2"].min_side == metrics.SSIMULACRA2_SIDE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ssim=0.9", "one of psnr, ms-ssim, ssimulacra2"),
        ("psnr", "not METRIC=VALUE"),
        ("psnr=", "is not a number"),
        ("psnr=high", "is not a number"),
        ("psnr=nan", "in 0..100"),
        ("psnr=-1", "in 0..100"),
        ("psnr=inf", "in 0..100"),
        ("ms-ssim=98", "in 0..1"),
        ("ssimulacra2=101", "in 0..100"),
    ],
)
def test_what_is_no_target(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        EncodeOptions(target=text)


def test_options_that_exclude_each_other() -> None:
    for others in ({"quality": 50}, {"target_bpp": 1.0}, {"target_size": 1}):
        with pytest.raises(UsageError, match="exclude each other"):
            EncodeOptions(target="psnr=30", **others)  # type: ignore[arg-type]
    assert EncodeOptions(target=" PSNR=30").metric_target == Target(METRICS["psnr"], 30)


@given(GROWTH, st.floats(-50, 50), TARGETS)
def test_what_is_found_reaches_the_target(
    growth: list[float], begin: float, target: Target
) -> None:
    values = [begin + sum(growth[1 : level + 1]) for level in range(LEVELS)]
    tried: list[int] = []

    def probe(level: int) -> tuple[range, float]:
        tried.append(level)
        return range(level), values[level]

    if values[-1] >= target.value:
        coded, value = smallest(probe, target)
        assert value == values[len(coded)] >= target.value
        missed = [level for level in tried if values[level] < target.value]
        assert max(missed, default=-1) < len(coded) and len(tried) <= PROBES
    else:
        with pytest.raises(TargetError, match=f"the best is SSIMULACRA2 {values[-1]:.2f}"):
            smallest(probe, target)
    assert len(tried) == len(set(tried)) <= PROBES


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("shift", [-12.0, 0.0, 9.0])
@pytest.mark.parametrize("value", [10.0, 25.0, 40.0])
def test_a_likely_picture_is_met_closely(gain: float, shift: float, value: float) -> None:
    """A picture whose curve is another one than the mean of all, by a factor and a shift."""
    metric = METRICS["ssimulacra2"]
    levels = range(LEVELS)
    values = shift + gain * (np.interp(levels, targets.LEVELS, metric.curve) - 20) + 20
    coded, reached = smallest(lambda n: (range(n), float(values[n])), Target(metric, value))
    lowest = int(np.searchsorted(values, value))
    assert lowest <= len(coded) <= lowest + 1 and reached >= value


def test_a_deadline_ends_the_search() -> None:
    target, tried = Target(METRICS["psnr"], 30), []

    def probe(level: int) -> tuple[range, float]:
        tried.append(level)
        return range(level), 29.0 + 2 * (level == MAX_LEVEL)

    assert smallest(probe, target, deadline=0.0)[1] == 31 and tried[1:] == [MAX_LEVEL]
    assert smallest(lambda level: (range(level), 40.0), target, deadline=0.0)[1] == 40


@pytest.mark.parametrize("target", ["psnr=30", "ms-ssim=0.95", "ssimulacra2=40"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_file_reaches_what_was_asked_for(
    codec: Codec, lake: Image.Image, target: str, mode: str
) -> None:
    """By its decoded picture, and that of two levels below does not."""
    image = lake.crop((200, 100, 400, 290)).convert(mode)
    picture = picture_from_image(image)
    encoded = codec.encode_picture(picture, EncodeOptions(target=target))
    wish = EncodeOptions(target=target).metric_target
    assert wish is not None and encoded.reached is not None
    below = EncodeOptions(quality=(encoded.container.level - 2) / 2)
    values = []
    for data in (encoded.data, codec.encode_picture(picture, below).data):
        planes = np.asarray(codec.decode(data).convert("L" if mode == "L" else "RGB"))
        decoded = planes[..., None] if mode == "L" else planes
        values.append(wish.metric.measure(picture.rgb[..., : decoded.shape[2]], decoded))
    assert values[0] == encoded.reached >= wish.value > values[1]


def test_a_picture_that_is_too_small(codec: Codec, lake: Image.Image) -> None:
    for target, side in (("ms-ssim=0.9", 160), ("ssimulacra2=50", 7)):
        image = lake.crop((0, 0, 300, side))
        with pytest.raises(UsageError, match=f"needs sides of {side + 1} pixels at least"):
            codec.encode(image, EncodeOptions(target=target))


def test_what_cannot_be_reached(codec: Codec, small: Image.Image) -> None:
    with pytest.raises(TargetError, match=r"no quality reaches PSNR 70.00 dB; the best is PSNR 3"):
        codec.encode(small, EncodeOptions(target="psnr=70"))
