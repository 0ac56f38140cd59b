"""How a training run treats its user: options once, the next command, files as the umask says."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import SIZES, SMALL
from rich.console import Console

from bkcodec.bundle import installed_bundles
from bkcodec.commands import train_talk
from bkcodec.commands.train import train as train_command
from bkcodec.commands.train_names import FORMER_NAMES
from bkcodec.commands.train_resume import _wherever
from bkcodec.train.objectives.joint import JointObjective

pytestmark = pytest.mark.usefixtures("few_prior_steps", "fresh_accelerator")


def options(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "run.json").read_text())["options"]
    return content


def test_a_run_goes_on_without_its_options(
    train: Callable[..., int],
    run: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    monkeypatch.chdir(photos.parent)  # the folders were given as relative paths
    words = ["--data", f"{photos.name}=2", "--val", photos.name, "--lambda", "1e-3:0.05"]
    assert train(folder, 2, *words, "--inner", "0.75", "--save-steps", "1") == 0
    before = options(folder)
    monkeypatch.chdir(tmp_path)
    assert run("train", "-o", "run", "--resume", "--max-steps", "4") == 0
    assert options(folder) == before | {"max_steps": 4}
    assert len(list(folder.glob("checkpoint_*.safetensors"))) == 2
    assert (folder / "checkpoint_0000004.safetensors").is_file()
    capsys.readouterr()
    for other in (("--seed", "1"), ("--data", photos), ("--N", "24"), ("--phase", "prior")):
        assert run("train", "-o", folder, "--resume", *other) in (2, 3), other
        (line,) = [t for t in capsys.readouterr().err.splitlines() if "error:" in t]
        assert "the run had another" in line or "--phase prior needs --init-from" in line
    assert run("train", "-o", folder, "--resume", "--seed", "0", "--batch-size", "2") == 0
    # Another kind of length takes the place of the old one.
    assert run("train", "-o", folder, "--resume", "--epochs", "3") == 0
    assert options(folder) == before | {"max_steps": None, "epochs": 3}
    assert (folder / "checkpoint_0000006.safetensors").is_file()


def test_names_stay_names_in_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lite", "runs"):
        (tmp_path / name).mkdir()
    texts = [_wherever(text, False) for text in ("lite", "./lite", "runs", "nowhere")]
    assert texts == ["lite", str(tmp_path / "lite"), str(tmp_path / "runs"), "nowhere"]
    assert _wherever("lite", True) == str(tmp_path / "lite")  # --init-from takes it for a run


def test_what_cannot_be_resumed(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "-o", tmp_path / "none", "--resume") == 3
    assert "no run to resume here" in capsys.readouterr().err
    for content, code, text in (
        ("{", 3, "damaged"),
        ("[]", 3, "damaged"),
        ("{}", 2, "repeat the options"),
    ):
        (tmp_path / "run.json").write_text(content)
        assert run("train", "-o", tmp_path, "--resume") == code
        assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--lr", "nan"), "nan is not a finite number"),
        (("--max-minutes", "inf"), "inf is not a finite number"),
        (("--N", "100000000"), "not in the range"),
        (("--config", "/dev/zero"), "larger than the limit"),
    ],
)
def test_numbers_and_files_without_end(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
    text: str,
) -> None:
    assert run("train", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line


def test_the_next_command_can_be_typed(
    train: Callable[..., int],
    run: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "my run"
    assert train(folder, 1) == 0
    following = capsys.readouterr().err.splitlines()[-2:]
    export, longer = (shlex.split(line.split(": bkcodec ")[1]) for line in following)
    assert run(*longer) == 0
    assert options(folder)["max_steps"] == 2
    assert run(*export) == 0
    bundle = tmp_path / "my run.safetensors"
    assert bundle.is_file()
    provenance = json.loads(bundle.with_suffix(".provenance.json").read_text())
    assert "request" not in provenance  # paths of this machine
    following = capsys.readouterr().err.splitlines()[-2:]
    encode, add = (shlex.split(line.split(": bkcodec ")[1]) for line in following)
    assert encode[-2:] == ["-m", str(bundle)]
    monkeypatch.setenv("BKCODEC_HOME", str(tmp_path / "home"))
    assert run(*add) == 0
    (installed,) = installed_bundles()
    assert installed.name == "my-run"
    photo = next(photos.glob("*.png"))
    assert run("encode", photo, "-m", "my-run", "-o", tmp_path / "a.bkc") == 0
    assert run("decode", tmp_path / "a.bkc", "-o", tmp_path / "a.png") == 0


def test_an_interrupted_run_says_how_to_go_on(
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(JointObjective, "forward", interrupt)
    assert train(tmp_path / "run", 3) == 130
    text = capsys.readouterr().err
    assert f"to go on: bkcodec train -o {tmp_path / 'run'} --resume" in text


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_are_as_the_umask_says_and_stderr_is_ours(
    photos: Path, tmp_path: Path, umask: int
) -> None:
    """A run and an export in fresh processes: every file, and every line that is said."""
    folder, bundle = tmp_path / "run", tmp_path / "b.safetensors"
    code = (
        f"import os, sys\nos.umask({umask})\nfrom bkcodec import cli\n"
        "from bkcodec.train import start\nstart.PRIOR_STEPS = 2\ncli.run()\n"
    )
    common = [sys.executable, "-c", code, "train", "--data", photos]
    small = ["--val", photos, "-o", folder, "--max-steps", "1", "--device", "cpu", *SMALL, *SIZES]
    said = []
    for words in (small, ["--export", folder, "-o", bundle]):
        command = [str(word) for word in (*common, *words)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said += done.stderr.splitlines()
    assert not [line for line in said if "warn" in line.lower() or "deprecated" in line.lower()]
    dated = [line for line in said if line[:2] == "20"]
    assert [line.split(":")[0] for line in said if line not in dated] == [
        "next",
        "or, for longer",
        "next",
        "or",
    ]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.json", "best.safetensors", "training.log"} <= {path.name for path in files}
    assert len(files) >= 9
    if os.name == "posix":
        for path in files:
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes anything for a terminal then
    with train_talk.talk() as clock:
        clock.show("fitting the prior", 0.25, 100.0)
    monkeypatch.setenv("RANK", "1")  # of several processes one has it
    with train_talk.talk() as clock:
        clock.show("training", 0.25, 100.0)


def test_log_lines_stay_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    handler = train_talk._AboveTheBar(Console(stderr=True))
    handler.emit(logging.makeLogRecord({"msg": "step %d", "args": (7,)}))
    assert capsys.readouterr().err == "step 7\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("--data_path", "in bkcodec that is --data"),
        ("--val_data_path", "in bkcodec that is --val"),
        ("--model_path", "in bkcodec that is --bk-sdm"),
        ("--learning_rate", "in bkcodec that is --lr"),
        ("--num_epochs", "in bkcodec that is --epochs"),
        ("--save_dir", "in bkcodec that is --output-dir"),
        ("--batch_size", "in bkcodec that is --batch-size"),
        ("--epoch", "Did you mean"),
    ],
)
def test_names_of_former_scripts_get_a_hint(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert run("train", name, "x") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"No such option: {name}" in line or "No such option '" in line
    assert message in line


def test_former_names_lead_to_options() -> None:
    current = {option for parameter in train_command.params for option in parameter.opts}
    assert set(FORMER_NAMES.values()) <= current and not set(FORMER_NAMES) & current
    done = CliRunner().invoke(train_command, ["--help"])
    assert done.exit_code == 0 and "--data_path" not in done.output
