"""Several processes write the same output at once."""

from __future__ import annotations

from pathlib import Path

from tests.faults.common import leftovers, photos, start

PROCESSES = 6


def fault(folder: Path, count: int = 5) -> str:
    photo = next(photos(folder / "photos", 1).iterdir())
    expected = set()
    for quality in range(PROCESSES):
        path = folder / f"{quality}.bkc"
        start("encode", photo, "-o", path, "-q", 10 * quality).communicate()
        expected.add(path.read_bytes())
    for number in range(count):
        for force in ([], ["-f"]):
            out = folder / f"out{number}{len(force)}.bkc"
            processes = [
                start("encode", photo, "-o", out, "-q", 10 * quality, *force)
                for quality in range(PROCESSES)
            ]
            for process in processes:
                process.communicate()
            codes = sorted(process.returncode for process in processes)
            assert codes == ([0] * PROCESSES if force else [0] + [3] * (PROCESSES - 1)), codes
            assert out.read_bytes() in expected and not leftovers(folder)
    return (
        f"{2 * count} races of {PROCESSES}: one file each, whole; without --force exactly one "
        "succeeded, the others said that it exists"
    )
