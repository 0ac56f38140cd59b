"""Millions of sections cost no more than reading them: no type may occur twice."""

from __future__ import annotations

import time
from pathlib import Path

from tests.attacks.common import bkcodec, file, refused, section


def attack(folder: Path) -> str:
    unknown = b"".join(section(kind, b"") for kind in range(0x87, 0x100))
    (folder / "all.bkc").write_bytes(file(1, 1, section(1, b"") + unknown))
    assert bkcodec("info", "all.bkc", cwd=folder).code == 0
    seconds = []
    for n in (10**6, 10**7):
        (folder / "many.bkc").write_bytes(file(1, 1, section(1, b"") + section(0xF0, b"") * n))
        started = time.monotonic()
        refused(bkcodec("info", "many.bkc", cwd=folder), 4)
        seconds.append(time.monotonic() - started)
    assert seconds[1] < 5
    return f"exit 4 after {seconds[0]:.1f} s for 2 MB of sections, {seconds[1]:.1f} s for 20 MB"
