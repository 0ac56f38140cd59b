"""A profile of 1 MB that inflates to 1 GB stops at the limit of 16 MiB, in little memory."""

from __future__ import annotations

import zlib
from pathlib import Path

from tests.attacks.common import bkcodec, file, only, refused, section


def attack(folder: Path) -> str:
    deflater = zlib.compressobj(9)
    packed = b"".join(deflater.compress(bytes(2**24)) for _ in range(64)) + deflater.flush()
    for kind in (0x82, 0x83, 0x84):
        bomb = file(1, 1, section(1, b"") + section(kind, b"\1" + packed))
        (folder / "x.bkc").write_bytes(bomb)
        done = refused(bkcodec("info", "x.bkc", cwd=folder), 6)
        assert done.peak < 150
    refused(bkcodec("info", "x.bkc", "--extract", "xmp", "-o", "xmp", cwd=folder), 6)
    refused(bkcodec("decode", "x.bkc", cwd=folder), 6)
    only(folder, "x.bkc")
    return f"exit 6, {done.peak:.0f} MiB at the peak for {len(packed) / 1e6:.1f} MB"
