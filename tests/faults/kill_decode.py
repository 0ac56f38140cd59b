"""SIGKILL at random moments of a batch that decodes over old files."""

from __future__ import annotations

from pathlib import Path

from tests.faults.common import contents, finish, photos, usual_seconds
from tests.faults.kill_encode import trials


def fault(folder: Path, count: int = 50) -> str:
    source, out = folder / "files", folder / "out"
    code, err, _ = finish("encode", photos(folder / "photos", 40), "-o", f"{source}/")
    assert code == 0, err
    command = ("decode", source, "-o", f"{out}/", "-f")
    whole = usual_seconds(*command)
    return trials(source, out, command, contents(out), contents(source), whole, count)
