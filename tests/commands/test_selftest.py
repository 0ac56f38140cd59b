"""``bkcodec selftest``: passes here, and says so where something is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bkcodec.commands import selftest

Run = Callable[..., int]


def test_this_machine_passes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("selftest", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "passed: 29 checks; this machine reads and writes the files on record" in out
    assert "torch" in out and "WRONG" not in out


def test_other_bytes_and_pixels_are_failures(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (mark,) = selftest.ENCODED
    monkeypatch.setattr(selftest, "ENCODED", {mark: {50.0: "0" * 16}})
    assert run("selftest", "--device", "cpu", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["passed"] and sum(not check["good"] for check in found["checks"]) == 1
    record = json.loads((selftest.vectors_folder() / "pixel-q50.json").read_text())
    shutil.copy(selftest.vectors_folder() / "pixel-q50.bkc", tmp_path)
    (tmp_path / "pixel-q50.json").write_text(json.dumps(record | {"pixels_sha256": "other"}))
    monkeypatch.setattr(selftest, "vectors_folder", lambda: tmp_path)
    monkeypatch.setattr(selftest, "ENCODED", {})
    assert run("selftest", "--device", "cpu") == 1
    assert "WRONG    pixels of pixel-q50 on cpu" in capsys.readouterr().out


def test_wrong_symbols_and_damaged_files_are_failures(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("lake-q0", "pixel-q50"):
        for suffix in (".bkc", ".json"):
            shutil.copy((selftest.vectors_folder() / name).with_suffix(suffix), tmp_path)
    (tmp_path / "lake-q0.json").write_text('{"width": 768, "symbols_sha256": "other"}')
    (tmp_path / "pixel-q50.bkc").write_bytes(b"damaged")
    monkeypatch.setattr(selftest, "vectors_folder", lambda: tmp_path)
    assert run("selftest") == 1
    out = capsys.readouterr().out
    assert "FAILED: 3 of" in out and "differing: symbols_sha256" in out and "not a .bkc" in out
    monkeypatch.setattr(selftest, "vectors_folder", lambda: tmp_path / "nothing")
    assert run("selftest") == 5
