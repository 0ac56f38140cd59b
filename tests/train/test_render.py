"""Drawn training pictures: the same for a seed, of every kind and side, and varied."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import features

from bkcodec.train import render as module
from bkcodec.train.render import KINDS, Canvas, render

PLANES = (module.flat, module.gradient)  # kinds that may come out nearly constant


def picture(seed: int, side: int = 64) -> NDArray[np.uint8]:
    return render(np.random.default_rng(seed), side)


def only(kind: Callable[[Canvas], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS", {kind: 1})


def steps(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The largest channel's difference of each pixel to the next one in its row."""
    largest: NDArray[np.int16] = np.abs(np.diff(image.astype(np.int16), axis=1)).max(axis=2)
    return largest


def test_a_seed_gives_one_picture_and_another_seed_another() -> None:
    for seed in range(20):
        assert np.array_equal(picture(seed), picture(seed))
    assert len({picture(seed).tobytes() for seed in range(40)}) == 40


@pytest.mark.parametrize("side", [16, 17, 176, 256])
def test_shape_and_type(side: int) -> None:
    for seed in range(5):
        image = picture(seed, side)
        assert image.shape == (side, side, 3)
        assert image.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_at_odd_sides(
    kind: Callable[[Canvas], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(kind, monkeypatch)
    images = [picture(seed, side) for seed in range(10) for side in (16, 41, 130)]
    varied = sum(image.std(axis=(0, 1)).max() > 0.5 for image in images)
    assert varied >= len(images) / (2 if kind in PLANES else 1.5)


def test_dark_and_light_pictures() -> None:
    means = np.array([picture(seed).mean() for seed in range(150)])
    assert (means < 64).mean() > 0.1
    assert (means > 192).mean() > 0.1
    assert 90 < means.mean() < 190


def test_flat_pictures_hold_faint_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    only(module.flat, monkeypatch)
    largest = np.array([steps(picture(seed)).max() for seed in range(60)])
    assert ((largest > 0) & (largest < 30)).any()
    assert (largest > 100).any()


def test_text_is_sharp_on_even_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    only(module.text, monkeypatch)
    differences = [steps(picture(seed, 128)) for seed in range(30)]
    assert np.mean([(d > 60).mean() for d in differences]) > 0.05
    assert np.mean([(d <= 2).mean() for d in differences]) > 0.4


def test_letters_without_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: False)
    monkeypatch.setattr(module, "_font", None)
    only(module.text, monkeypatch)
    assert np.mean([(steps(picture(seed, 128)) > 60).mean() for seed in range(10)]) > 0.03


def test_no_global_random_state_is_touched() -> None:
    own, numpys = random.getstate(), np.random.get_state()
    for seed in range(20):
        picture(seed)
    assert random.getstate() == own
    for before, after in zip(numpys, np.random.get_state(), strict=True):
        assert np.array_equal(before, after)
