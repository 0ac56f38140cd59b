"""A file of 40 bytes that claims 2^31 pixels is refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.common import LOADED, bkcodec, file, only, refused, section

SIZES = [(2**16, 2**15), (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)]


def attack(folder: Path) -> str:
    peaks = []
    for number, (width, height) in enumerate(SIZES):
        bomb = folder / f"{number}.bkc"
        bomb.write_bytes(file(width, height, section(1, b"")))
        assert bkcodec("info", bomb, cwd=folder).code == 0
        done = refused(bkcodec("info", "--verify", bomb, cwd=folder), 6)
        assert done.peak < LOADED
    done = refused(bkcodec("decode", bomb, "-o", "out.png", cwd=folder), 6)
    peaks.append(done.peak)
    assert done.peak < LOADED
    done = refused(bkcodec("decode", bomb, "-o", "out.png", "--max-pixels", 0, cwd=folder), 6)
    assert done.peak < LOADED and "MB of memory" in done.err
    only(folder, "0.bkc", "1.bkc", "2.bkc", "3.bkc")
    return f"exit 6, {max(peaks):.0f} MiB at the peak; without a limit, 6 for want of memory"
