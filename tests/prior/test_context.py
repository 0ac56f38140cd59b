"""The context prior: exact on every machine, close to its ideal, robust to bad arrays."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import reference_decoder
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_prior import CHANNELS, Steps, draw, integer_prior, random_network

from bkcodec.codec import Codec
from bkcodec.errors import FormatError, UnsupportedError
from bkcodec.options import LEVELS, MAX_LEVEL
from bkcodec.prior import exact, walk
from bkcodec.prior.build import build_tables, laplace_cumulative
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.tables import Tables
from bkcodec.train.prior.network import ContextConfig, ContextNetwork
from bkcodec.train.prior.thaw import thaw


@pytest.fixture(scope="module")
def network() -> ContextNetwork:
    return random_network()


@pytest.fixture(scope="module")
def prior(network: ContextNetwork) -> ContextPrior:
    return integer_prior(network)


def symbols_at(level: int, seed: int = 3, height: int = 9, width: int = 11) -> np.ndarray:
    step = Steps().step(torch.tensor([level / MAX_LEVEL]))
    return (draw(seed, height, width) / step[0]).round().numpy()


def ideal_bytes(coder: object, symbols: np.ndarray) -> float:
    _, likelihoods = coder.likelihoods(symbols)  # type: ignore[attr-defined]
    return float(-np.log2(likelihoods.astype(np.float64)).sum() / 8)


@pytest.mark.parametrize("phases", [1, 2, 4, 7, 10])
@pytest.mark.parametrize("level", [0, 77, 200])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 11), (30, 41)])
def test_round_trip_close_to_the_ideal(phases: int, level: int, size: tuple[int, int]) -> None:
    coder = integer_prior(random_network(phases)).level(level)
    symbols = symbols_at(level, 3, *size)
    data, coded = coder.encode(symbols)
    assert np.array_equal(coder.decode(data, *size), coded)
    assert (coded != symbols).mean() < 0.01  # only what is not worth coding
    ideal = ideal_bytes(coder, symbols)
    assert ideal - 1 <= len(data) <= 1.005 * ideal + 8


def test_wild_symbols_survive(prior: ContextPrior) -> None:
    symbols = symbols_at(100)
    symbols[:, 2, 3], symbols[:, 4, 4] = 32767, -32767
    symbols[0, 0, 0], symbols[5, 8, 8] = 1e9, -1e9  # beyond 16 bits: limited
    data, coded = prior.level(100).encode(symbols)
    assert np.array_equal(prior.level(100).decode(data, 9, 11), coded)
    later = prior.order[prior.groups[0] :]  # the first phase has tables that clamp
    assert (coded[later, 2, 3] == 32767).all() and (coded[later, 4, 4] == -32767).all()
    ideal = ideal_bytes(prior.level(100), symbols)
    assert ideal - 1 <= len(data) <= 1.005 * ideal + 8


def test_training_and_integers_agree() -> None:
    """The rate in training is that of the coded string, within 1 %."""
    network = random_network(noise=0.02)  # sane predictions: wild ones are cheaper as an excess
    prior = integer_prior(network)
    for level in (0, 100, 200):
        z = draw(5, 40, 40)
        position = torch.tensor([level / MAX_LEVEL])
        step = Steps().step(position)
        data, coded = prior.level(level).encode((z / step[0]).round().numpy())
        symbols = torch.from_numpy(coded).float()[None]
        bits = network.bits(symbols * step, symbols, step, position).sum()
        # The first phase: a learned density in training, here tables of a Laplace distribution.
        order = network.order[: network.config.groups[0]]
        even = (torch.arange(40)[:, None] + torch.arange(40)) % 2 == 0
        learned = network.first.bits((symbols * step)[:, order], step[:, order])
        _, p = prior.first.level(level).likelihoods(coded[order.numpy()][:, even.numpy()])
        replaced = learned[..., even].sum().item()
        expected = bits.item() - replaced - np.log2(p.astype(np.float64)).sum()
        assert abs(8 * len(data) - expected) < 0.01 * expected + 64


@pytest.mark.parametrize("phases", [1, 4, 7])
def test_training_can_go_on_from_the_integers(phases: int) -> None:
    """A network made of a bundle's arrays has the same weights, and gives these arrays again."""
    prior = integer_prior(random_network(phases))
    steps = Steps().all_steps()
    again = ContextNetwork(ContextConfig((2, 4, 8), (phases,) * 3, 16), 10)
    state = thaw(prior, steps, 10)
    left_out = [k for k in again.state_dict() if k not in state]
    assert all(k.startswith("first.") for k in left_out)
    again.load_state_dict({**again.state_dict(), **state})
    for name, array in again.integers(steps).items():
        expected = prior.arrays[name].astype(np.int64)
        if name.endswith((".weight", ".shared", ".shift", "order")):
            assert np.array_equal(array, expected), name
        else:  # rounded twice
            assert np.allclose(array, expected, rtol=2e-3, atol=1), name


@pytest.mark.parametrize("phases", [1, 2, 4, 7, 10])
@pytest.mark.parametrize("has_map", [False, True])
def test_plain_python_integers_agree(phases: int, has_map: bool) -> None:
    prior = integer_prior(random_network(phases))
    symbols = symbols_at(120, height=7, width=9)
    symbols[3, 1, 1] = 500
    levels: int | np.ndarray = 120
    if has_map:
        levels = np.random.default_rng(phases).integers(0, LEVELS, (7, 9)).astype(np.uint8)
    data, coded = prior.at(levels).encode(symbols)
    assert np.array_equal(prior.at(levels).decode(data, 7, 9), coded)
    for dot in (reference_decoder.plain_dot, reference_decoder.int64_dot):
        read = reference_decoder.decode_symbols(data, levels, 7, 9, prior.bundled(), dot)
        assert np.array_equal(read, coded)


@pytest.mark.parametrize("has_map", [False, True])
def test_positions_that_a_level_does_not_code(has_map: bool) -> None:
    """A cell whose level codes a position beside one whose level does not."""
    whole = integer_prior(random_network(7))
    coded = np.ones((LEVELS, CHANNELS), np.uint8)
    coded[:100, 5:] = 0
    prior = ContextPrior(whole.arrays | {"coded": coded}, whole.first)
    levels = np.where(np.arange(54).reshape(6, 9) % 4 < 2, 30, 170).astype(np.uint8)
    at: int | np.ndarray = levels if has_map else 30
    data, kept = prior.at(at).encode(symbols_at(120, height=6, width=9))
    missing = kept[prior.order[5:]][:, levels == 30] if has_map else kept[prior.order[5:]]
    assert not missing.any() and kept.any()
    assert np.array_equal(prior.at(at).decode(data, 6, 9), kept)
    read = reference_decoder.decode_symbols(data, at, 6, 9, prior.bundled())
    assert np.array_equal(read, kept)
    likely, p = prior.at(at).likelihoods(kept)
    assert np.array_equal(likely, kept) and (p[prior.order[5:]][:, levels == 30] == 1).all()


def test_factorized_tables_with_a_level_map() -> None:
    spread = np.array([0.02, 0.5, 4.0])  # the first channel is not coded at low levels
    steps = Steps().all_steps()[:, :3].numpy()
    grid = build_tables(laplace_cumulative(spread), steps, 12 * spread)
    assert 1 == grid.lengths.min() < grid.lengths[-1, 0]
    levels = np.random.default_rng(0).integers(0, LEVELS, (5, 6)).astype(np.uint8)
    symbols = np.random.default_rng(1).integers(-9, 10, (grid.n_channels, 5, 6))
    data, kept = grid.at(levels).encode(symbols)
    assert np.array_equal(grid.at(levels).decode(data, 5, 6), kept)
    read = reference_decoder.decode_symbols(data, levels, 5, 6, grid.bundled())
    assert np.array_equal(read, kept)
    likely, p = grid.at(levels).likelihoods(symbols)
    assert np.array_equal(likely, kept) and p.shape == kept.shape and (p > 0).all()
    even = np.full((5, 6), 70, np.uint8)
    assert grid.at(even).encode(symbols)[0] == grid.at(70).encode(symbols)[0]


def test_a_group_of_which_nothing_is_coded(prior: ContextPrior) -> None:
    coded = prior.arrays["coded"].copy()
    coded[:, 2:6] = 0  # the second of three groups
    coded[:, 9] = 0
    hollow = ContextPrior(prior.arrays | {"coded": coded}, prior.first)
    symbols = symbols_at(150)
    data, kept = hollow.level(150).encode(symbols)
    assert np.array_equal(hollow.level(150).decode(data, *symbols.shape[1:]), kept)
    assert not kept[prior.order[2:6]].any() and kept[prior.order[6:9]].any()
    assert hollow.level(150).likelihoods(symbols)[1].min() > 0


@pytest.mark.parametrize("largest", [63, 127])
@pytest.mark.parametrize("mapped", [False, True])
def test_both_engines_and_any_number_of_threads_agree(
    prior: ContextPrior, largest: int, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = dict(prior.arrays)
    for name in [k for k in arrays if k.endswith((".shared", ".1.weight"))]:
        arrays[name] = (arrays[name] * (largest / 63)).astype(np.int8)
    larger = ContextPrior(arrays, prior.first)
    kinds = {weight.dtype for weight in larger.shared}
    assert (np.dtype(np.uint8) in kinds) == (largest > exact.SMALL)
    symbols = symbols_at(120, 3, 40, 50)
    levels = np.random.default_rng(0).integers(100, 140, (40, 50)).astype(np.uint8)
    coder = larger.at(levels if mapped else 120)
    data, coded = coder.encode(symbols)
    monkeypatch.setattr(walk, "MANY", 1)
    monkeypatch.setattr(exact, "BAND", 100)
    monkeypatch.setattr(walk, "n_threads", lambda: 3)
    assert coder.encode(symbols)[0] == data
    monkeypatch.setattr(walk, "_engine", lambda: exact)
    assert coder.encode(symbols)[0] == data
    assert np.array_equal(coder.decode(data, 40, 50), coded)


def mkl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product: np.ndarray = torch.mm(
        torch.from_numpy(np.ascontiguousarray(a)), torch.from_numpy(b)
    ).numpy()
    return product


def in_float64(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("product", [mkl, in_float64])
def test_another_blas_and_float64_agree(
    codec: Codec, lake: object, product: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = codec.encoder.quantise(codec.encoder.analyse(np.asarray(lake), None)[1], 110)
    coder = codec.bundle.prior.level(110)
    data, coded = coder.encode(symbols)
    calls = []

    def counted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        calls.append(1)
        return product(a, b)  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(walk, "_engine", lambda: exact)
    monkeypatch.setattr(exact, "product", counted)
    assert coder.encode(symbols)[0] == data and np.array_equal(coder.decode(data, 32, 48), coded)
    assert len(calls) > 20


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_of_the_blas_do_not_matter(codec: Codec, lake: object, threads: str) -> None:
    symbols = codec.encoder.quantise(codec.encoder.analyse(np.asarray(lake), None)[1], 90)
    expected, _ = codec.bundle.prior.level(90).encode(symbols)
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from bkcodec.bundle import load_bundle\n"
        "symbols = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(-1, 32, 48)\n"
        "bundle = load_bundle(Path(sys.argv[1]))\n"
        "sys.stdout.buffer.write(bundle.prior.level(90).encode(symbols)[0])\n"
    )
    environment = {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    command = [sys.executable, "-c", code, str(codec.bundle.path)]
    raw = symbols.astype(np.float32).tobytes()
    done = subprocess.run(command, input=raw, capture_output=True, check=True, env=environment)
    assert done.stdout == expected


@given(st.binary(max_size=80).map(lambda b: b[: len(b) // 4 * 4]))
@settings(max_examples=100, deadline=None)
def test_any_words_decode_or_raise_our_error(prior: ContextPrior, data: bytes) -> None:
    try:
        symbols = prior.level(150).decode(data, 3, 4)
    except FormatError:
        return
    assert symbols.shape == (CHANNELS, 3, 4)


def test_a_short_string_does_not_cost_minutes(prior: ContextPrior) -> None:
    """All words 0 say "lowest symbol, and an excess" everywhere; refused before it takes long."""
    with pytest.raises(FormatError, match="too short"):
        prior.level(200).decode(b"", 64, 64)


def test_a_prior_of_one_group() -> None:
    torch.manual_seed(0)
    network = ContextNetwork(ContextConfig((CHANNELS,), (2,), 16), 10)
    network.measure(draw(1, 24, 24)[None])
    coder = integer_prior(network).level(100)
    data, coded = coder.encode(symbols_at(100))
    assert np.array_equal(coder.decode(data, 9, 11), coded)


def test_a_symbol_beyond_16_bits_is_refused(prior: ContextPrior) -> None:
    """A string that says so cannot come from our encoder, so another one is built by hand."""
    from bkcodec.prior import parts

    symbols = symbols_at(150)
    symbols[prior.order[-1], 4, 4] = 40_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SYMBOL_MAX", 2**16)
        data, _ = prior.level(150).encode(symbols)
    with pytest.raises(FormatError, match="beyond 16 bits"):
        prior.level(150).decode(data, 9, 11)


@pytest.mark.parametrize(
    "fault",
    [
        "missing",
        "overflow",
        "shift 0",
        "shape",
        "type",
        "phases",
        "groups",
        "order",
        "magnitude",
        "first",
        "excess",
        "nothing",
        "residual",
        "rows of a matrix",
        "levels of a bias",
        "huge group",
        "float gain",
        "scales",
        "uncoded",
        "cheap excess",
    ],
)
def test_bad_arrays_are_refused(prior: ContextPrior, fault: str) -> None:
    arrays = {k: v.copy() for k, v in prior.arrays.items()}
    first = prior.first
    if fault == "missing":
        del arrays["1.0.2.weight"]
    elif fault == "overflow":
        arrays["1.0.2.bias"][7, 3] = 2**24
    elif fault == "shift 0":
        arrays["1.0.2.shift"][0] = 0
    elif fault == "shape":
        arrays["2.1.3.weight"] = arrays["2.1.3.weight"][:, 1:]
    elif fault == "type":
        arrays["2.shared"] = arrays["2.shared"].astype(np.float32)
    elif fault == "phases":
        arrays["phases"][1] = 3
    elif fault == "groups":
        arrays["groups"][1] = 5
    elif fault == "order":
        arrays["order"][0] = arrays["order"][1]
    elif fault == "magnitude":
        arrays["magnitude"][9] = 128
    elif fault == "first":
        first = Tables(
            first.lengths[:5], first.low[:5], first.weights[: int(first.lengths[:5].sum())]
        )
    elif fault == "excess":
        arrays["excess.low"][0, 0] = 1
    elif fault == "residual":
        single = np.argwhere(arrays["rows.lengths"] == 1)[0]
        arrays["rows.low"][tuple(single)] = 1
    elif fault == "rows of a matrix":
        arrays["2.1.3.weight"] = arrays["2.1.3.weight"][1:]
    elif fault == "levels of a bias":
        arrays["2.1.3.bias"] = arrays["2.1.3.bias"][1:]
    elif fault == "huge group":
        arrays["groups"] = arrays["groups"].astype(np.int64)
        arrays["groups"][1] = 2**40
    elif fault == "float gain":
        arrays["gain"] = arrays["gain"] * np.float32(np.nan)
    elif fault == "scales":
        for name in ("rows.lengths", "rows.low"):
            arrays[name] = np.tile(arrays[name], (100, 1))
        arrays["rows.weights"] = np.tile(arrays["rows.weights"], 100)
    elif fault == "uncoded":
        arrays["coded"][50, 0] = 0
    elif fault == "cheap excess":
        arrays["excess.weights"][:] = 1
        arrays["excess.weights"][0] = 2**16 - 17
    else:
        arrays = {}
    with pytest.raises(UnsupportedError, match="context prior"):
        ContextPrior(arrays, first)


def test_lite_is_coded_close_to_its_ideal(codec: Codec, lake: object) -> None:
    z = codec.encoder.analyse(np.asarray(lake), None)[1]
    for level in (0, 60, 100, 160, 200):
        symbols = codec.encoder.quantise(z, level)
        coder = codec.bundle.prior.level(level)
        data, coded = coder.encode(symbols)
        assert np.array_equal(coder.decode(data, *z.shape[1:]), coded)
        assert len(data) <= 1.005 * ideal_bytes(coder, symbols) + 8


@pytest.mark.slow
def test_speed_and_linear_growth(codec: Codec, lake: object) -> None:
    """A bound on the times that docs/lite.md gives; twelve megapixels cost no more per pixel.

    Both sizes take turns, and the best run of each counts, in time of this process: other work
    comes and goes.
    """
    z = codec.encoder.analyse(np.asarray(lake), None)[1]
    big = np.tile(z, (1, 6, 6))[:, :188, :250]
    coder = codec.bundle.prior.level(100)
    strings = {v.shape[1:]: coder.encode(codec.encoder.quantise(v, 100))[0] for v in (z, big)}
    best = dict.fromkeys(strings, float("inf"))
    for _ in range(7):
        for shape, data in strings.items():
            for _ in range(6 if shape == z.shape[1:] else 1):
                start = time.process_time()
                coder.decode(data, *shape)
                best[shape] = min(best[shape], time.process_time() - start)
    small, large = best.values()
    assert small < 0.15
    assert large / big[0].size < 1.3 * small / z[0].size
