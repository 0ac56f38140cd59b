from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bkcodec.codec import Codec
from bkcodec.entropy import TOTAL, LevelTables, Tables
from bkcodec.errors import FormatError, UnsupportedError
from bkcodec.tables import build_tables, integer_weights, laplace_cumulative


def laplace_tables(spread: float, channels: int = 5) -> LevelTables:
    spreads = np.full(channels, spread)
    steps = np.ones((1, channels))
    return build_tables(laplace_cumulative(spreads), steps, 12 * spreads).level(0)


def draw(tables: LevelTables, spread: float, cells: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return tables.clamp(np.rint(rng.laplace(0, spread / np.sqrt(2), (len(tables.low), *cells))))


@pytest.mark.parametrize("spread", [0.3, 2.0, 40.0])
def test_coded_size_is_close_to_the_ideal_and_comes_back(spread: float) -> None:
    tables = laplace_tables(spread)
    symbols = draw(tables, spread, (40, 50))
    data = tables.encode(symbols)
    ideal = tables.information(symbols) / 8
    assert ideal <= len(data) <= 1.005 * ideal + 8
    assert np.array_equal(tables.decode(data, 40, 50), symbols)


def test_lite_is_coded_close_to_its_ideal(codec: Codec, lake: object) -> None:
    z = codec._analyse(np.asarray(lake), None)
    for level in (0, 60, 100, 160, 200):
        tables = codec.bundle.tables.level(level)
        symbols = codec._quantise(z, level)
        data = tables.encode(symbols)
        assert len(data) <= 1.005 * tables.information(symbols) / 8 + 8
        assert np.array_equal(tables.decode(data, *z.shape[1:]), symbols)


@given(st.binary(max_size=64).map(lambda b: b[: len(b) // 4 * 4]))
@settings(max_examples=300)
def test_any_words_decode_or_raise_our_error(data: bytes) -> None:
    tables = laplace_tables(2.0)
    try:
        symbols = tables.decode(data, 3, 4)
    except FormatError:
        return
    assert (symbols >= tables.low[:, None, None]).all()
    assert (symbols <= tables.high[:, None, None]).all()


def test_odd_lengths_and_leftovers_are_refused() -> None:
    tables = laplace_tables(2.0)
    data = tables.encode(draw(tables, 2.0, (6, 6)))
    with pytest.raises(FormatError, match="multiple of 4"):
        tables.decode(data + b"\0", 6, 6)
    with pytest.raises(FormatError, match="goes on"):
        tables.decode(data + b"\1\2\3\4" * 3, 6, 6)


def test_symbols_beyond_the_table_are_clamped() -> None:
    tables = laplace_tables(1.0)
    wild = np.array([1e9, -1e9, 0.0, 1.0] * 5).reshape(5, 2, 2)
    clamped = tables.clamp(wild)
    assert clamped.dtype == np.int16
    assert np.array_equal(tables.decode(tables.encode(clamped), 2, 2), clamped)


def test_a_one_symbol_table_costs_nothing() -> None:
    tables = build_tables(laplace_cumulative(np.full(3, 0.001)), np.ones((1, 3)), np.ones(3))
    level = tables.level(0)
    symbols = level.clamp(np.ones((3, 4, 4)))
    assert level.encode(symbols) == b"" and not symbols.any()
    assert np.array_equal(level.decode(b"", 4, 4), symbols)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=300).filter(lambda p: sum(p) > 1e-6))
def test_integer_weights(probabilities: list[float]) -> None:
    weights = integer_weights(np.array(probabilities))
    assert weights.sum(dtype=np.int64) == TOTAL and weights.min() >= 1


@pytest.mark.parametrize("fault", ["sum", "zero", "count", "range"])
def test_bad_tables_are_refused(fault: str) -> None:
    lengths = np.array([[2, 2]], np.uint16)
    low = np.array([[0, 0]], np.int16)
    weights = np.array([1, TOTAL - 1, 2, TOTAL - 2], np.uint16)
    Tables(lengths, low, weights)
    if fault == "sum":
        weights[0] = 3
    elif fault == "zero":
        weights[:2] = 0, 0
    elif fault == "count":
        weights = weights[:3]
    else:
        low[0, 1] = 32767
    with pytest.raises(UnsupportedError):
        Tables(lengths, low, weights)


@pytest.mark.slow
def test_twelve_megapixels_are_coded_in_under_300_ms(codec: Codec, lake: object) -> None:
    """In time of one core, which other load on the machine does not stretch."""
    z = codec._analyse(np.asarray(lake), None)
    big = np.tile(z, (1, 6, 6))[:, :188, :250]  # 4000 x 3000 pixels
    for level in (100, 200):
        tables = codec.bundle.tables.level(level)
        symbols = codec._quantise(big, level)
        tables.decode(tables.encode(symbols), 188, 250)  # builds the models
        encode, decode = [], []
        for _ in range(3):
            start = time.thread_time()
            data = tables.encode(symbols)
            middle = time.thread_time()
            tables.decode(data, 188, 250)
            encode.append(middle - start)
            decode.append(time.thread_time() - middle)
        assert min(encode) < 0.3 and min(decode) < 0.3, (level, encode, decode)
