"""A section that reaches into the next one, the CRC or beyond the file is refused."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.common import bkcodec, file, only, refused, section, varint

Z = section(1, b"")


def attack(folder: Path) -> str:
    tries = {
        "into the crc": Z + b"\xf0" + varint(1),
        "beyond the end": Z + b"\xf0" + varint(2**31 - 1) + b"x",
        "z beyond the end": b"\1" + varint(5) + b"1234",
        "over the next one": b"\xf0" + varint(4) + Z,
        "a type and no length": Z + b"\xf0",
        "z within another": section(0xF0, Z),
    }
    for number, sections in enumerate(tries.values()):
        (folder / f"{number}.bkc").write_bytes(file(1, 1, sections))
        refused(bkcodec("info", f"{number}.bkc", cwd=folder), 4)
    refused(bkcodec("decode", "0.bkc", "-o", "out.png", cwd=folder), 4)
    only(folder, *(f"{n}.bkc" for n in range(len(tries))))
    return f"exit 4 for each of {len(tries)}"
