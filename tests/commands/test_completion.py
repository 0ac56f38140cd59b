"""What shells are told to complete, through click's own protocol."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.shell_completion import BashComplete

from bkcodec import cli
from bkcodec.commands import completion
from bkcodec.errors import UnsupportedError

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> Complete:
    """The answers to a command line whose last word is being written."""

    def call(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        return BashComplete(cli.main, {}, "bkcodec", "_BKCODEC_COMPLETE").complete().split()

    return call


def test_commands(complete: Complete) -> None:
    assert complete("bkcodec se") == ["plain,selftest"]
    assert complete("bkcodec th") == []  # hidden


def test_files(complete: Complete) -> None:
    for line in ("bkcodec info pho", "bkcodec info photo.bkc pho", "bkcodec info a.bkc -o pho"):
        assert complete(line) == ["file,pho"]


def test_bundles(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("bkcodec info a.bkc --model l") == ["file,l", "plain,lite"]
    assert complete("bkcodec info a.bkc --model b") == ["file,b", "plain,bk-sdm"]
    assert complete("bkcodec info a.bkc --model mine") == ["file,mine"]

    def missing() -> None:
        raise UnsupportedError("no weights in this installation")

    monkeypatch.setattr(completion, "shipped_bundles", missing)
    assert complete("bkcodec info a.bkc --model l") == ["file,l"]
