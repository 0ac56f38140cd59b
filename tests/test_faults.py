"""The faults of ``tests/faults``, a few times each; docs/reliability.md has the long runs."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))
COUNTS = {
    "kill_encode": 3,
    "kill_decode": 3,
    "kill_bench": 1,
    "kill_train": 3,
    "interrupt": 2,
    "replaced_input": 2,
    "parallel": 1,
    "batch": 100,
    "kill_shards": 2,
    "shards": 100,
    "full_disk": 1,
    "read_only": 1,
}
MOUNTING = {"full_disk", "read_only"}


def may_mount() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    if name in MOUNTING and not may_mount():
        pytest.skip("mounting a small file system needs root")
    module = importlib.import_module(f"tests.faults.{name}")
    assert module.fault(tmp_path, COUNTS[name])


def test_every_fault_is_tried() -> None:
    from tests.faults.__main__ import NAMES

    assert set(NAMES) == set(COUNTS)
