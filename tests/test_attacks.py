"""All attempts of ``tests/attacks`` fail."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from tests.attacks.__main__ import NAMES  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_fails(name: str, tmp_path: Path) -> None:
    assert importlib.import_module(f"tests.attacks.{name}").attack(tmp_path)
