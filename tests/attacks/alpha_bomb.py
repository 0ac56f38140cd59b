"""An alpha plane that is another size, a text bomb or no PNG does not decode."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from tests.attacks.common import LOADED, ONE_CELL, bkcodec, file, only, refused, section


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), *chunks, (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + kind + data
        out += struct.pack(">I", zlib.crc32(kind + data))
    return out


def attack(folder: Path) -> str:
    pixels = (b"IDAT", zlib.compress(bytes(17 * 16)))
    text = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**28), 9))
    profile = (b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**28), 9))
    gif = io.BytesIO()
    Image.new("L", (16, 16)).save(gif, "GIF")
    tries = [
        png(2**31 - 1, 2**31 - 1),
        png(17, 16, pixels),
        png(16, 16),
        png(16, 16, text, pixels),
        png(16, 16, profile, pixels),
        png(16, 16, (b"IDAT", zlib.compress(bytes(2**28), 9))),
        gif.getvalue(),
        b"",
    ]
    codes, peaks = [], []
    for number, alpha in enumerate(tries):
        path = folder / f"{number}.bkc"
        path.write_bytes(file(16, 16, ONE_CELL + section(0x81, alpha)))
        done = bkcodec("decode", path, cwd=folder)
        codes.append(done.code)
        peaks.append(done.peak)
        assert done.code == 0 or refused(done, 4)
        assert done.peak < LOADED
    assert codes[:3] == [4, 4, 4] and codes[-2:] == [4, 4]
    only(
        folder,
        *(f"{n}.bkc" for n in range(len(tries))),
        *(f"{n}.png" for n, code in enumerate(codes) if not code),
    )
    return f"exit codes {codes}, {max(peaks):.0f} MiB at the peak"
