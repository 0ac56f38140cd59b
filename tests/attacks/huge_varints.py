"""Varints over 2^31 - 1, without end or longer than they need be are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from tests.attacks.common import LITE, MAGIC, bkcodec, refused

VARINTS = [
    b"\xff\xff\xff\xff\x0f",
    b"\xff" * 30,
    b"\x80" * 5 + b"\1",
    b"\x81\x80\x00",
    b"\x80\x00",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
]


def attack(folder: Path) -> str:
    n = 0
    for hostile in VARINTS:
        fields = [b"\1", b"\1", b"\x10\x64", b"\1", b"\0"]  # width, height, ..., length of z
        for place in (0, 1, 4):
            changed = [*fields[:place], hostile, *fields[place + 1 :]]
            body = MAGIC + b"\1" + LITE + b"".join(changed)
            (folder / "x.bkc").write_bytes(body + struct.pack("<I", zlib.crc32(body)))
            refused(bkcodec("info", "x.bkc", cwd=folder), 4)
            n += 1
    return f"exit 4 for each of {n}"
