"""The time of a run: everything counts, and it is shown how much is left."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bkcodec.train import clock as clock_module
from bkcodec.train import trainer as trainer_module
from bkcodec.train.clock import Clock, in_words
from bkcodec.train.objectives.prior import PriorObjective
from bkcodec.train.trainer import Trainer
from bkcodec.train.validate import Validation

pytestmark = pytest.mark.usefixtures("few_prior_steps", "fresh_accelerator")

STEP, FIT_STEP, VALIDATION = 7.0, 4.0, 20.0  # seconds that these take below


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A time that passes only where a test says so."""
    now = [1000.0]
    time = SimpleNamespace(monotonic=lambda: now[0])
    for module in (clock_module, trainer_module):
        monkeypatch.setattr(module, "time", time)
    return now


@pytest.fixture
def slow(seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Networks that do nothing but take their time."""

    def advance(self: Trainer, x: torch.Tensor) -> dict[str, float]:
        seconds[0] += STEP
        self.step += 1
        return {"loss": 1.0}

    def fit(self: PriorObjective, *_: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seconds[0] += FIT_STEP
        loss = sum(p.sum() for p in self.prior.parameters() if p.requires_grad)
        assert isinstance(loss, torch.Tensor)
        return loss, {"bpp": torch.zeros(())}

    def rows(self: Validation, _: object) -> list[object]:
        seconds[0] += VALIDATION
        return []

    monkeypatch.setattr(Trainer, "advance", advance)
    monkeypatch.setattr(Trainer, "_rounded_rate", lambda *_: {})
    monkeypatch.setattr(PriorObjective, "forward", fit)
    monkeypatch.setattr(Validation, "rows", rows)
    monkeypatch.setattr(Validation, "cost", lambda *_: 0.5)
    return seconds


def test_minutes_hold_for_all_that_a_run_does(
    train: Callable[..., int], slow: list[float], tmp_path: Path
) -> None:
    """Fitting the prior, two validations and the steps between them."""
    began, folder = slow[0], tmp_path / "run"
    assert train(folder, 1000, "--max-minutes", "4") == 0
    assert 240 - STEP - 0.2 * VALIDATION <= slow[0] - began <= 240
    log = (folder / "training.log").read_text()
    fitted = int(log.split("prior fitted in ")[1].split()[0])
    assert fitted == math.ceil(240 / 3 / FIT_STEP)
    assert log.count("val cost") == 2  # at the start, which tells what the last one takes
    assert json.loads((folder / "validation.json").read_text())["minutes"] == 3.9

    began = slow[0]
    assert train(folder, 1000, "--max-minutes", "4", "--resume") == 0
    assert slow[0] - began < STEP  # nothing is left
    assert train(folder, 1000, "--max-minutes", "6", "--resume") == 0
    assert 120 - 2 * STEP - 0.2 * VALIDATION <= slow[0] - began <= 120


def test_a_run_that_is_too_short_takes_one_step(
    train: Callable[..., int], slow: list[float], tmp_path: Path
) -> None:
    assert train(tmp_path / "run", 1000, "--max-minutes", "0.1") == 0
    assert (tmp_path / "run" / "checkpoint_0000001.safetensors").is_file()
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_run_cut_short_before_its_first_step_goes_on(
    train: Callable[..., int], slow: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the prior that was fitted, and all the time that this took."""
    folder, advance = tmp_path / "run", Trainer.advance

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "advance", interrupt)
    assert train(folder, 1000, "--max-minutes", "4") == 130
    assert (folder / "checkpoint_0000000.safetensors").is_file()
    used = slow[0]
    monkeypatch.setattr(Trainer, "advance", advance)
    assert train(folder, 1000, "--max-minutes", "4", "--resume") == 0
    assert (folder / "training.log").read_text().count("prior fitted") == 1
    assert slow[0] - used <= 240 - 80 - VALIDATION


def test_lines_say_how_much_is_left(
    train: Callable[..., int], slow: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "REPORT_STEPS", 1000)
    assert train(tmp_path / "run", 20) == 0
    lines = (tmp_path / "run" / "training.log").read_text().splitlines()
    reports = [line for line in lines if "s/step" in line]
    assert len(reports) == 4  # every 30 seconds or more: five steps of seven
    assert "step 8 " in reports[1] and "(7.00 s/step), 40 % done, 84 s left" in reports[1]
    assert any("fitting the prior: " in line and " s left" in line for line in lines)


def test_a_clock_without_a_limit(seconds: list[float]) -> None:
    shown: list[tuple[str, float, float]] = []
    clock = Clock(lambda *what: shown.append(what))
    clock.show("training", 0.5, 3.0)
    assert shown == [("training", 0.5, 3.0)]
    assert clock.progress(1e9) == 0 and clock.left(0, math.inf) == math.inf
    clock.stepped(2.0)
    clock.ending = 5.0
    assert clock.left(100, 10) == 25 and clock.left(100, 0) == 5
    clock.go_on({"elapsed": 50.0})  # of a checkpoint from before this class
    assert clock.elapsed == 50 and clock.first_step == 0
    texts = [in_words(s) for s in (3, 600, 7200, math.inf)]
    assert texts == ["3 s", "10 min", "2.0 h", "?"]
