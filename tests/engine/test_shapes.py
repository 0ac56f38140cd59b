"""Arrays of a bundle that do not fit together are refused when it is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_networks import model_on_grids

from bkcodec.engine.networks import Arrays
from bkcodec.engine.runtime import Runtime
from bkcodec.errors import UnsupportedError
from bkcodec.train.integers import integer_arrays


@pytest.fixture(scope="module")
def arrays(lake: Image.Image) -> Arrays:
    return integer_arrays(model_on_grids(lake))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("vae.encoder.stem.weight", lambda a: a[:, :-1], "does not fit"),
        ("vae.encoder.stem.weight", lambda a: a[..., None], "does not fit"),
        ("vae.encoder.linear.weight", lambda a: a.T, "does not fit"),
        ("vae.encoder.fine.blocks.0.conv.bias", lambda a: a[:-1], "does not fit"),
        ("h_a.head.weight", lambda a: a.astype(np.float16), "float16"),
        ("h_a.head.exponent", lambda a: a + 65, "not an exponent"),
        ("vae.decoder.linear.bias", lambda a: a[0], "0 dimensions"),
        ("vae.decoder.head.weight", lambda a: a[:-1], "does not fit"),
        ("h_s.blocks.blocks.0.film.bias", lambda a: a[:-1], "pairs"),
        ("h_s.blocks.blocks.0.film.weight", lambda a: a[:, :-1], "shape"),
        ("unet.deep.blocks.0.film.bias", lambda a: None, "unet.deep.blocks.0.film.bias"),
        ("embedding", lambda a: a[:-1], "embedding has the shape"),
        ("time", lambda a: a[:, :-1], "time has the shape"),
        ("start", lambda a: a + 2000, "noise schedule"),
        ("steps", lambda a: a * np.float32(np.nan), "positive"),
        ("y_std", lambda a: -a, "positive"),
        ("dequantise", lambda a: a[:, :-1], "dequantise has the shape"),
    ],
)
def test_what_does_not_fit(arrays: Arrays, name: str, change: Any, said: str) -> None:
    changed = change(arrays[name])
    odd = {k: v for k, v in arrays.items() if k != name}
    odd |= {} if changed is None else {name: changed}
    with pytest.raises(UnsupportedError, match="integer networks do not fit") as raised:
        Runtime(odd)
    assert said in str(raised.value)


def test_a_modulation_without_its_block(arrays: Arrays) -> None:
    """A stack ends where a block is missing; what modulates it may be there all the same."""
    block = "unet.deep.blocks.2"
    odd = {
        k: v
        for k, v in arrays.items()
        if k not in (f"{block}.reduce.weight", f"{block}.conv.exponent")
    }
    with pytest.raises(UnsupportedError, match="conv.exponent"):
        Runtime(odd)
