from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bkcodec.errors import FormatError, UnsupportedError
from bkcodec.prior.build import build_tables, integer_weights, laplace_cumulative
from bkcodec.prior.tables import TOTAL, LevelTables, Table, Tables


def laplace_tables(spread: float, channels: int = 5) -> LevelTables:
    spreads = np.full(channels, spread)
    steps = np.ones((1, channels))
    return build_tables(laplace_cumulative(spreads), steps, 12 * spreads).level(0)


def draw(tables: LevelTables, spread: float, cells: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (len(tables.channels), *cells)
    return tables.clamp(np.rint(rng.laplace(0, spread / np.sqrt(2), shape)))


def ideal_bytes(tables: LevelTables, symbols: np.ndarray) -> float:
    return float(-np.log2(tables.likelihoods(symbols)[1].astype(np.float64)).sum() / 8)


@pytest.mark.parametrize("spread", [0.3, 2.0, 40.0])
def test_coded_size_is_close_to_the_ideal_and_comes_back(spread: float) -> None:
    tables = laplace_tables(spread)
    symbols = draw(tables, spread, (40, 50))
    data, coded = tables.encode(symbols)
    ideal = ideal_bytes(tables, symbols)
    assert np.array_equal(coded, symbols)
    assert ideal - 0.01 <= len(data) <= 1.005 * ideal + 8
    assert np.array_equal(tables.decode(data, 40, 50), symbols)


@given(st.binary(max_size=64).map(lambda b: b[: len(b) // 4 * 4]))
@settings(max_examples=300)
def test_any_words_decode_or_raise_our_error(data: bytes) -> None:
    tables = laplace_tables(2.0)
    try:
        symbols = tables.decode(data, 3, 4)
    except FormatError:
        return
    assert np.array_equal(tables.clamp(symbols), symbols)


def test_odd_lengths_and_leftovers_are_refused() -> None:
    tables = laplace_tables(2.0)
    data, _ = tables.encode(draw(tables, 2.0, (6, 6)))
    with pytest.raises(FormatError, match="multiple of 4"):
        tables.decode(data + b"\0", 6, 6)
    with pytest.raises(FormatError, match="goes on"):
        tables.decode(data + b"\1\2\3\4" * 3, 6, 6)


def test_symbols_beyond_the_table_are_clamped() -> None:
    tables = laplace_tables(1.0)
    wild = np.array([1e9, -1e9, 0.0, 1.0] * 5).reshape(5, 2, 2)
    data, clamped = tables.encode(wild)
    assert clamped.dtype == np.int16 and np.array_equal(clamped, tables.clamp(wild))
    assert np.array_equal(tables.decode(data, 2, 2), clamped)


def test_a_one_symbol_table_costs_nothing() -> None:
    tables = build_tables(laplace_cumulative(np.full(3, 0.001)), np.ones((1, 3)), np.ones(3))
    level = tables.level(0)
    symbols = level.clamp(np.ones((3, 4, 4)))
    assert level.encode(symbols)[0] == b"" and not symbols.any()
    assert np.array_equal(level.decode(b"", 4, 4), symbols)
    assert (level.likelihoods(symbols)[1] == 1).all()


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


def test_words_of_which_nothing_is_decoded_are_refused() -> None:
    """Two of them fit into the coder's state, where something could be hidden."""
    silent = LevelTables([Table(3, np.zeros(1, np.uint16))])
    assert silent.encode(np.full((1, 2, 2), 3))[0] == b""
    assert (silent.decode(b"", 2, 2) == 3).all()
    for words in (b"\0\0\0\0", b"\1\2\3\4\5\6\7\x08"):
        with pytest.raises(FormatError, match="goes on"):
            silent.decode(words, 2, 2)
