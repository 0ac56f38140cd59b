"""SIGKILL at random moments of a batch that encodes over old files."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.faults.common import (
    contents,
    kill_at,
    leftovers,
    moments,
    photos,
    start,
    usual_seconds,
)

OLD = b"an older file, which must not be lost"


def fault(folder: Path, count: int = 50) -> str:
    source, out = photos(folder / "photos", 40), folder / "out"
    originals = contents(source)
    command = ("encode", source, "-o", f"{out}/", "-f")
    whole = usual_seconds(*command)
    return trials(source, out, command, contents(out), originals, whole, count)


def trials(
    source: Path,
    out: Path,
    command: tuple[object, ...],
    expected: dict[str, bytes],
    originals: dict[str, bytes],
    whole: float,
    count: int,
) -> str:
    """Kill the command again and again over old files; each output is old or new, to the byte."""
    killed = new = old = temporary = 0
    for moment in moments(count, whole):
        shutil.rmtree(out)
        out.mkdir()
        for name in expected:
            (out / name).write_bytes(OLD)
        killed += kill_at(start(*command), moment)
        found = contents(out)
        assert found.keys() == expected.keys()
        assert all(data in (OLD, expected[name]) for name, data in found.items())
        assert contents(source) == originals
        new += sum(data != OLD for data in found.values())
        old += sum(data == OLD for data in found.values())
        temporary += len(leftovers(out))
    return (
        f"{count} runs, {killed} killed while running: {new} outputs new, {old} still old, "
        f"0 torn or lost; {temporary} temporary files left, all named as such"
    )
