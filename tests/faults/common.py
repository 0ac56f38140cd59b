"""Photos to work on, processes to disturb, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from bkcodec import Codec
from bkcodec.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "tests" / "samples" / "lake.png"


def photos(folder: Path, n: int, size: tuple[int, int] = (240, 160)) -> Path:
    """A folder of details of the sample photo."""
    folder.mkdir(parents=True)
    rng = random.Random(n)
    with Image.open(SAMPLE) as lake:
        for i in range(n):
            x, y = rng.randrange(lake.width - size[0]), rng.randrange(lake.height - size[1])
            lake.crop((x, y, x + size[0], y + size[1])).save(folder / f"{i:04}.png")
    return folder


def start(*arguments: object, code: str = "", **options: object) -> subprocess.Popen[bytes]:
    """The program, in a process group of its own; ``code`` runs before it."""
    entry = ["-c", code] if code else ["-m", "bkcodec"]
    return subprocess.Popen(
        [sys.executable, *entry, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=_default_signals,
        **options,
    )  # type: ignore[call-overload, no-any-return]


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it


def usual_seconds(*arguments: object, code: str = "") -> float:
    """Of an undisturbed run that succeeds; the second one, when everything is in memory."""
    for _ in range(2):
        exit_code, err, seconds = finish(*arguments, code=code)
        assert exit_code == 0, err
    return seconds


def finish(*arguments: object, code: str = "") -> tuple[int, str, float]:
    """Exit code, errors and seconds of an undisturbed run."""
    began = time.monotonic()
    process = start(*arguments, code=code)
    _, err = process.communicate()
    return process.returncode, err.decode("utf-8", "replace"), time.monotonic() - began


def kill_at(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """SIGKILL, to the process alone, after a time; whether it was still running."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def moments(count: int, whole: float, first: float = 0.4) -> Iterator[float]:
    """Random moments of a run, most of its start-up left out: nothing is written there."""
    rng = random.Random(count)
    for _ in range(count):
        yield whole * rng.uniform(first, 1.0)


def leftovers(folder: Path) -> list[Path]:
    """Temporary files, which their names give away."""
    return [p for p in folder.rglob("*") if is_temporary(p)]


def is_temporary(path: Path) -> bool:
    return path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(TEMPORARY_SUFFIX)


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files that are not temporary, by name."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not is_temporary(p)
    }


def is_whole(data: bytes) -> bool:
    """A .bkc file that decodes."""
    return bool(Codec("lite", "cpu").decode(data))


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system in memory; only root may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
