"""Sampling: noise of whole numbers, and a chain that goes where it should."""

from __future__ import annotations

import numpy as np
import pytest

from bkcodec.engine.sampling import (
    Latents,
    Schedule,
    colour_channels,
    noise,
    sample,
    spread_table,
)
from bkcodec.models.denoising import beta_schedule

ALPHAS = np.cumprod(1 - beta_schedule("linear", 1000).astype(np.float64))
SCHEDULE = Schedule(ALPHAS, spread_table())


def test_noise_is_nearly_normal_and_stays_what_it_is() -> None:
    x = noise((3, 200, 200), 5)
    assert abs(x.mean()) < 0.01 and abs(x.var() - 1) < 0.01
    fourth = (x**4).mean()
    assert 2.8 < fourth < 3.0  # 3 - 6 / (5 * 12) for a sum of twelve
    assert np.array_equal(x * 2**17, np.rint(x * 2**17))
    assert not np.array_equal(x, noise((3, 200, 200), 6))
    few = noise((2, 1, 3), 5)
    assert np.array_equal(few.ravel(), x.ravel()[:6])


def test_a_chain_visits_the_timesteps_that_it_should() -> None:
    visited: list[int] = []

    def predict(y_t: Latents, t: int) -> Latents:
        visited.append(t)
        return np.zeros_like(y_t)

    known = np.zeros((1, 2, 2)), np.full((1, 2, 2), -6.0)
    for start, steps, expected in (
        (999, 4, [999, 749, 499, 249]),
        (10, 3, [10, 6, 3]),
        (1, 8, [1, 0]),
        (0, 2, [0]),
    ):
        visited.clear()
        sample(predict, known, SCHEDULE, start, steps, 0)
        assert visited == expected


def test_noise_fills_what_the_mean_lacks() -> None:
    """With an error of its own that is large enough, the mean gets none."""
    seen: list[Latents] = []

    def predict(y_t: Latents, t: int) -> Latents:
        seen.append(y_t)
        return y_t

    mean = np.ones((1, 64, 64))
    for log_scale in (-6.0, -1.0, 2.0):
        sample(predict, (mean, np.full_like(mean, log_scale)), SCHEDULE, 500, 1, 0)
    sure, unsure, lost = seen
    rest = 1 - ALPHAS[500] * (1 + np.exp(-2.0))
    assert abs(sure.var() / (1 - ALPHAS[500]) - 1) < 0.05
    assert abs(unsure.var() / rest - 1) < 0.05
    assert np.array_equal(lost, np.sqrt(ALPHAS[500]) * mean)


def test_a_perfect_prediction_is_where_the_chain_ends() -> None:
    truth = np.linspace(-2, 2, 12).reshape(1, 3, 4)
    known = truth + 0.1, np.full_like(truth, -2.0)
    assert np.array_equal(sample(lambda y, t: truth, known, SCHEDULE, 300, 5, 1), truth)


def test_colour_is_where_red_green_and_blue_cancel_out() -> None:
    pattern = np.cos(np.arange(256))
    colours = [(1, 1, 1), (-2, -1, -1), (1, 0, -1), (1, -2, 1), (3, 0, 0), (5, -1, -1), (5, -2, -2)]
    weight = np.concatenate([np.outer(pattern, c) for c in np.array(colours).T])
    expected = [False, False, True, True, False, True, True]
    assert colour_channels(weight).tolist() == expected
    whole = np.rint(weight * 1000).astype(np.int32)
    assert colour_channels(whole * np.array([1, 2, 3, 4, 5, 6, 7])).tolist() == expected


def test_sums_of_large_weights_do_not_wrap_around() -> None:
    weight = np.full((768, 1), np.iinfo(np.int32).max, np.int32)
    assert not colour_channels(weight)[0]
    weight[256:] //= -2
    assert colour_channels(weight)[0]


@pytest.mark.parametrize(
    ("alphas", "spreads"),
    [
        (ALPHAS.astype(np.float32), spread_table()),
        (ALPHAS - 1, spread_table()),
        (ALPHAS, spread_table()[:-1]),
        (ALPHAS, spread_table() * np.nan),
    ],
)
def test_other_schedules_are_refused(alphas: Latents, spreads: Latents) -> None:
    with pytest.raises(ValueError, match="alphas|spreads"):
        Schedule(alphas, spreads)
