"""Every file of the fuzzers' corpus, and every input that once broke something."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from tests.fuzz import targets  # noqa: E402

CORPUS = ROOT / "tests" / "fuzz" / "corpus"


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_corpus_breaks_nothing(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert len(files) > 1
    for path in files:
        targets.run(name, path.read_bytes())


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 2e6


def test_a_target_lets_other_errors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(targets, "container_from_bytes", broken)
    with pytest.raises(IndexError):
        targets.run("container", b"")
