"""Trains a bundle in the stages that a TOML file lists, one after the other.

    python scripts/train_lite.py scripts/lite.toml RUNS --data PHOTOS --val PHOTOS --lpips WEIGHTS

Each stage has a folder of its own in RUNS. A stage that was begun goes on where its last checkpoint
is, a finished one is passed over, so the same command takes up the work at any time. A stage keeps
the weights that it began from: to do it again after the one before has gone on, remove its folder
and bundle, and those after it. ``--processes 2`` gives each of two cores a process of its own.
Options after ``--`` go to every stage, and win: ``-- --max-steps 3 --batch-size 1`` rehearses all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OURS = ("name", "export")  # keys of a stage that are not options of `bkcodec train`


def options(values: dict[str, Any]) -> list[str]:
    """Values of a stage as options on a command line."""
    words = []
    for key, value in values.items():
        if key not in OURS:
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    return words


def run(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode)


def train(stage: dict[str, Any], before: Path | None, given: argparse.Namespace) -> Path:
    """Run a stage, or what is left of it; returns what the next one starts from."""
    folder = given.runs / stage["name"]
    bundle = given.runs / f"{stage['name']}.safetensors"
    photos = ["--data", str(given.data)]
    values = dict(stage)
    start = values.pop("init-from", before)
    launcher = [sys.executable, "-m"]
    if given.processes > 1:
        launcher += ["torch.distributed.run", "--nproc_per_node", str(given.processes), "-m"]
    words = options(values)
    if stage["phase"] == "texture":
        words += ["--lpips", str(given.lpips)]
    begun = (folder / "run.json").exists()
    words += ["--resume"] if begun else []
    words += ["--init-from", str(start)] if start is not None else []
    if not bundle.exists():
        run(
            [
                *launcher,
                "bkcodec.train",
                *photos,
                "--val",
                str(given.val),
                "-o",
                str(folder),
                *words,
                *given.more,
            ]
        )
    if not stage.get("export"):
        return Path(folder)
    if not bundle.exists():
        run(
            [
                sys.executable,
                "-m",
                "bkcodec",
                "train",
                "--export",
                str(folder),
                *photos,
                "-o",
                str(bundle),
                "--name",
                "lite",
                "--data-note",
                "docs/training-photos.md",
            ]
        )
    return bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--lpips", type=Path, help="LPIPS-SQ weights, for the texture stage")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--until", help="name of the last stage to run")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:end])
    given.more = words[end + 1 :]
    plan = tomllib.loads(given.plan.read_text("utf-8"))
    stages = plan.pop("stage")
    names = [stage["name"] for stage in stages]
    if given.until is not None and given.until not in names:
        parser.error(f"--until {given.until}: not one of {', '.join(names)}")
    if given.until is not None:
        stages = stages[: names.index(given.until) + 1]
    if given.lpips is None and any(stage["phase"] == "texture" for stage in stages):
        parser.error("the texture stage needs --lpips")
    before = None
    for stage in stages:
        before = train({**plan, **stage}, before, given)


if __name__ == "__main__":
    main()
