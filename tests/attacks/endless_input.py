"""An input without end is not read for ever."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.common import LOADED, bkcodec, only, refused

ZERO = Path("/dev/zero")


def attack(folder: Path) -> str:
    done = refused(bkcodec("decode", "-", "-o", "x.png", cwd=folder, stdin=ZERO), 4)
    assert done.peak < LOADED
    done = refused(bkcodec("info", "-", cwd=folder, stdin=ZERO), 4)
    assert done.peak < 150
    done = refused(bkcodec("encode", "-", "-o", "x.bkc", cwd=folder, stdin=ZERO), 6)
    assert done.peak < LOADED + 1200
    only(folder)
    return "decode and info stop after 4 bytes, encode after 1 GiB"
