from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bkcodec.commands.paths import Job, Naming, plan
from bkcodec.errors import (
    BkcError,
    InputError,
    UsageError,
)
from bkcodec.files import IMAGE_SUFFIXES, printable, write_whole


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.png", "b.jpg", "deep/er/c.png", "notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def targets(jobs: list[Job]) -> list[str]:
    return [str(job.target) for job in jobs]


def test_outputs(tree: Path, tmp_path: Path) -> None:
    def to(output: str | None, *inputs: object, recursive: bool = False) -> list[str]:
        naming = Naming(output, ".bkc")
        return targets(plan(map(str, inputs), naming, IMAGE_SUFFIXES, recursive).jobs)

    a = tree / "a.png"
    assert to(None, a) == [str(tree / "a.bkc")]
    assert to("x.bkc", a) == ["x.bkc"]
    assert to("new/", a) == [str(Path("new/a.bkc"))]
    assert to(str(tmp_path), a) == [str(tmp_path / "a.bkc")]
    assert to("-", a) == ["None"] and to(None, "-") == ["None"]
    assert to("y/", tree) == [str(Path("y/a.bkc")), str(Path("y/b.bkc"))]
    assert to("y/", tree, recursive=True)[-1] == str(Path("y/deep/er/c.bkc"))


@pytest.mark.parametrize(
    ("inputs", "output", "error", "message"),
    [
        (["missing.png"], None, InputError, "no such file"),
        (["deep"], None, InputError, "nothing to do"),
        (["a.png", "b.jpg"], "one.bkc", UsageError, "need a directory"),
        (["-", "-"], "-", UsageError, "twice|need a directory"),
        (["-"], "out/", UsageError, "standard input"),
        (["a.png"], "a.png", UsageError, "would be overwritten"),
    ],
)
def test_refusals(
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    inputs: list[str],
    output: str | None,
    error: type[BkcError],
    message: str,
) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(error, match=message):
        plan(inputs, Naming(output, ".bkc"), IMAGE_SUFFIXES, False)


def test_names_that_collide_are_listed_and_the_rest_is_done(tree: Path) -> None:
    (tree / "a.jpg").write_bytes(b"x")
    naming = Naming(str(tree / "out"), ".bkc")
    result = plan([str(tree)], naming, IMAGE_SUFFIXES, True)
    assert targets(result.jobs) == [str(tree / "out" / p) for p in ("b.bkc", "deep/er/c.bkc")]
    assert [job.source for job, _ in result.failures] == [tree / "a.jpg", tree / "a.png"]
    assert "would become" in str(result.failures[0][1]) and "a.png" in str(result.failures[0][1])
    assert "--keep-extension" in str(result.failures[0][1])
    kept = plan([str(tree)], replace(naming, keep_extension=True), IMAGE_SUFFIXES, True)
    assert not kept.failures and str(tree / "out" / "a.jpg.bkc") in targets(kept.jobs)


def test_a_name_given_twice_is_done_once(tree: Path) -> None:
    result = plan([str(tree / "a.png")] * 2, Naming("out/", ".bkc"), IMAGE_SUFFIXES, False)
    assert len(result.jobs) == 1 and not result.failures


def test_what_is_left_out_of_a_folder_is_counted(tree: Path) -> None:
    for name in ("d.heic", "e.HEIC", "._a.png", ".DS_Store", "old.bkc", "Makefile"):
        (tree / name).write_bytes(b"x")
    (tree / "__MACOSX").mkdir()
    (tree / "__MACOSX" / "b.png").write_bytes(b"x")
    result = plan([str(tree)], Naming(None, ".bkc"), frozenset({".png"}), True)
    assert {job.source for job in result.jobs} == {tree / "a.png", tree / "deep/er/c.png"}
    counted = {".heic": 2, ".jpg": 1, ".txt": 1, "no extension": 1}
    assert result.left_out == counted


def test_write_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, b"one")
    with pytest.raises(InputError, match="exists already"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    write_whole(path, b"three", force=True)
    assert path.read_bytes() == b"three"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    write_whole(tmp_path / "file", b"one")
    with pytest.raises(InputError):
        write_whole(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"one"


def test_a_full_disk_leaves_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """The system itself refuses: a process whose files may not grow over 1000 bytes."""
    (tmp_path / "old").write_bytes(b"precious")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from bkcodec.files import write_whole\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_whole(Path('old'), bytes(5000), force=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "cannot be written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"precious"


def test_names_are_printed_without_control_characters() -> None:
    assert printable("a\x1b[31m\nb") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b"


def test_pipes_and_devices_are_never_replaced(here: Path) -> None:
    os.mkfifo("fifo")
    with open(os.open("fifo", os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        write_whole(Path("fifo"), b"data", force=True)
        assert reader.read() == b"data" and Path("fifo").is_fifo()


def test_small_files_are_read_in_little_memory(here: Path) -> None:
    code = (
        "import resource; from pathlib import Path; from bkcodec.files import read_whole\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))\n"
        "read_whole(Path('one.png'), 2**30)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
