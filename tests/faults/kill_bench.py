"""SIGKILL at random moments of a benchmark, which then goes on to the end."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import psutil

from tests.faults.common import contents, finish, kill_at, moments, photos, start


def fault(folder: Path, count: int = 50) -> str:
    source, out = photos(folder / "photos", 1), folder / "out"
    originals = contents(source)
    command = ("bench", source, "-o", out, "-q", "10,60", "--peers", "jpeg", "--repetitions", "1")
    code, err, whole = finish(*command)
    assert code == 0, err
    expected = cells(out)
    killed = kept = 0
    for moment in moments(count, whole, 0.2):
        shutil.rmtree(out)
        process = start(*command)
        killed += kill_at(process, moment)
        assert contents(source) == originals
        began = (out / "run.json").is_file()
        if (out / "cells.jsonl").is_file():
            kept += len((out / "cells.jsonl").read_text().splitlines())
        code, err, _ = finish(*command, *(["--resume"] if began else []))
        assert code == 0, err
        assert cells(out) == expected
        deadline = time.monotonic() + 10
        while orphans(source) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not orphans(source)
    return (
        f"{count} runs, {killed} killed while running: each went on with --resume to the same "
        f"{len(expected)} cells ({kept} finished ones kept); no worker left behind"
    )


def cells(out: Path) -> set[tuple[str, float, str]]:
    detailed = json.loads((out / "detailed.json").read_text())
    assert (out / "report.html").is_file() and not any(c["error"] for c in detailed["cells"])
    return {(c["codec"], c["quality"], c["image"]) for c in detailed["cells"]}


def orphans(source: Path) -> list[int]:
    """Processes that still work for a killed benchmark."""
    return [
        p.pid
        for p in psutil.process_iter(["cmdline"])
        if "bkcodec.bench.serve" in " ".join(p.info["cmdline"] or []) and p.ppid() == 1
    ]
