"""EXIF directories that point at themselves, or claim 2^32 values, come out in every format."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

from PIL import Image

from tests.attacks.common import LOADED, ONE_CELL, bkcodec, file, section


def directory(*entries: tuple[int, int, int, int], next_one: int = 8) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", next_one)


def attack(folder: Path) -> str:
    loops = [
        directory((0x8769, 4, 1, 8), (0x8825, 4, 1, 8)),  # sub-directories that are itself
        directory((0x010F, 2, 2**32 - 1, 8)),  # a text of 4 GB
        directory((0x8769, 4, 1, 2**32 - 1)),
        directory((0x0112, 12, 2**31, 0)),
        directory(*[(0x0112, 3, 1, 6)] * 5000),
        b"II*\0" + b"\xff" * 40,
    ]
    for number, block in enumerate(loops):
        hostile = file(8, 8, ONE_CELL + section(0x83, b"\0" + block))
        (folder / f"{number}.bkc").write_bytes(hostile)
    warnings.simplefilter("ignore")  # Pillow's, on opening what came out
    for extension in ("png", "jpg", "webp", "tiff"):
        done = bkcodec("decode", folder, "-o", f"{extension}/", "--format", extension, cwd=folder)
        assert done.code == 0, done.err
        assert done.seconds < 60 and done.peak < LOADED
        for number in range(len(loops)):
            with Image.open(folder / extension / f"{number}.{extension}") as image:
                assert image.size == (8, 8)
    return f"{4 * len(loops)} pictures, each of the right size"
