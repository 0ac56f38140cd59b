"""Bands of a picture, one after the other: the same integers as of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from small_networks import model_on_grids

from bkcodec.coding import bands
from bkcodec.coding.bands import in_bands
from bkcodec.engine.networks import Arrays
from bkcodec.engine.runtime import Runtime
from bkcodec.tiling import Slices, scaled
from bkcodec.train.integers import integer_arrays


@pytest.fixture(scope="module")
def runtime(lake: Image.Image) -> Runtime:
    arrays: Arrays = integer_arrays(model_on_grids(lake))
    return Runtime(arrays)


@pytest.mark.parametrize(("threads", "widest"), [(1, 512), (3, 512), (2, 14)])
@pytest.mark.parametrize("grid", [(1, 1), (27, 5), (28, 90), (61, 9), (60, 64)])
def test_bands_change_nothing(
    runtime: Runtime,
    grid: tuple[int, int],
    threads: int,
    widest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bands, "WIDEST", widest)
    monkeypatch.setattr(bands, "n_threads", lambda: threads)
    rng = np.random.default_rng(0)
    rows, columns = grid
    symbols = rng.integers(-6, 7, (runtime.steps.shape[1], *grid)).astype(np.int16)
    rgb = rng.integers(0, 256, (16 * rows, 16 * columns, 3)).astype(np.uint8)

    def pixels(place: Slices) -> dict[str, np.ndarray]:
        return {"pixels": rgb[scaled(place, 16)].transpose(2, 0, 1)}

    def code(place: Slices) -> dict[str, np.ndarray]:
        return dict(runtime.code(symbols[(..., *place)], 90))

    everywhere = slice(0, rows), slice(0, columns)
    for name, feed in (("analysis", pixels), ("synthesis", code)):
        stream = runtime.stream(name)
        assert stream is not None
        parts = list(in_bands(stream, feed, grid))
        assert (len(parts) > 1) == (rows > bands.first_height(stream.reach))
        whole = runtime._network(name).run(feed(everywhere))
        for expected, found in zip(whole, zip(*parts, strict=True), strict=True):
            assert np.array_equal(np.concatenate(found, axis=1), expected)
