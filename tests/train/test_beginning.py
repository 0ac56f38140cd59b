"""What a run takes over from where it starts, and what of it is kept for later."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bkcodec.bundle import load_bundle

pytestmark = pytest.mark.usefixtures("few_prior_steps", "fresh_accelerator")


def rates(folder: Path) -> list[float]:
    """Bits per pixel at the last validation of a run."""
    rows = json.loads((folder / "validation.json").read_text())["rows"]
    return [row["bpp"] for row in rows]


def test_a_prior_of_another_shape_is_taken_over(
    train: Callable[..., int], run: Callable[..., int], photos: Path, tmp_path: Path
) -> None:
    """Without a word about its width and phases; told otherwise, the rate is lost at first."""
    first, bundle = tmp_path / "first", tmp_path / "b.safetensors"
    assert train(first, 6, "--hidden", "16", "--context-phases", "4") == 0
    assert run("train", "--export", first, "--data", photos, "-o", bundle) == 0
    for index, source in enumerate((first, bundle)):
        second = tmp_path / f"second-{index}"
        assert train(second, 1, "--init-from", source) == 0
        options = json.loads((second / "run.json").read_text())["options"]
        assert (options["hidden"], options["context_phases"]) == (16, 4)
        assert "starts afresh" not in (second / "training.log").read_text()
        assert rates(second) == pytest.approx(rates(first), rel=0.05)
        again = tmp_path / f"again-{index}.safetensors"
        assert run("train", "--export", second, "--data", photos, "-o", again) == 0
        assert load_bundle(again).prior.phases == load_bundle(bundle).prior.phases
    told = tmp_path / "told"
    assert train(told, 1, "--init-from", bundle, "--hidden", "24") == 0
    assert "starts afresh" in (told / "training.log").read_text()
