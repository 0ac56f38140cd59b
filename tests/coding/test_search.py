"""The search for a size: right for any sizes that grow, and quick for likely ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkcodec.coding.search import largest
from bkcodec.errors import TargetError
from bkcodec.options import LEVELS

GROWTH = st.lists(st.integers(0, 3000), min_size=LEVELS, max_size=LEVELS)


@given(GROWTH, st.integers(1, 300), st.integers(-5, 400_000))
def test_the_largest_that_fits(growth: list[int], smallest: int, limit: int) -> None:
    sizes = [smallest + sum(growth[1 : level + 1]) for level in range(LEVELS)]
    tried: list[int] = []

    def code(level: int) -> range:  # something of that length
        tried.append(level)
        return range(sizes[level])

    fitting = [level for level, size in enumerate(sizes) if size <= limit]
    if fitting:
        assert len(largest(code, limit)) == sizes[fitting[-1]]
    else:
        with pytest.raises(TargetError, match=f"smallest file has {smallest} bytes"):
            largest(code, limit)
    assert len(tried) == len(set(tried)) <= 14


def test_what_comes_later_is_reserved() -> None:
    def code(level: int) -> range:
        return range(100 + level)

    assert len(largest(code, 150)) == 150 and len(largest(code, 150, reserve=7)) == 143
    with pytest.raises(TargetError, match="no quality gives 105 bytes; the smallest file has 107"):
        largest(code, 105, reserve=7)


@pytest.mark.parametrize("limit", [1000, 2500, 6000, 20_000, 45_000, 65_000])
def test_a_likely_curve_takes_few_tries(limit: int) -> None:
    tried = []

    def code(level: int) -> range:  # about the size that lite makes of a photo of 768 x 512
        tried.append(level)
        return range(int(900 * 2 ** (6.2 * (level / 200) ** 0.93)))

    largest(code, limit)
    assert len(tried) <= 6


@pytest.mark.parametrize(("limit", "expected"), [(10**6, 100), (150, 0), (5, None)])
def test_a_deadline_ends_the_search(limit: int, expected: int | None) -> None:
    """The first guess is level 100; one that fits is taken, else the lowest level is tried."""
    tried = []

    def code(level: int) -> range:
        tried.append(level)
        return range(10 + 2 * level)

    if expected is None:
        with pytest.raises(TargetError, match="smallest file has 10 bytes"):
            largest(code, limit, deadline=0.0)
    else:
        assert len(largest(code, limit, deadline=0.0)) == 10 + 2 * expected <= limit
    assert set(tried) <= {0, 100}
