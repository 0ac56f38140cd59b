"""What attacks need: the program in a process of its own, with its time and memory."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MAGIC = b"\x8bBKC"
_PIXEL = (ROOT / "formats" / "vectors" / "pixel-q50.bkc").read_bytes()
LITE, ONE_CELL = _PIXEL[5:9], _PIXEL[13:-4]  # fingerprint, section z
LOADED = 900  # MiB that the program takes with its networks loaded, at most


@dataclass(frozen=True)
class Done:
    """A finished process: exit code, outputs, seconds, and MiB of memory at its peak."""

    code: int
    out: bytes
    err: str
    seconds: float
    peak: float


def bkcodec(*arguments: object, cwd: Path, stdin: Path | None = None) -> Done:
    """Run the program; a traceback on the way out is a failure of its own."""
    command = [sys.executable, "-m", "bkcodec", *map(str, arguments)]
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with (stdin or Path(os.devnull)).open("rb") as source:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=source,
                stdout=out,
                stderr=err,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.01)
        seconds = time.monotonic() - started
        for file in (out, err):
            file.seek(0)
        errors = err.read().decode("utf-8", "replace")
        assert "Traceback" not in errors, errors
        return Done(process.returncode, out.read(), errors, seconds, peak)


def peak_memory(pid: int) -> float:
    """Of a process so far, in MiB. (What wait4 says includes its parent's, from before exec.)"""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def refused(done: Done, code: int) -> Done:
    """One clear line and the right exit code."""
    assert done.code == code, (done.code, done.err)
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("bkcodec: error: "), done.err
    return done


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*out, value])


def section(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + varint(len(payload)) + payload


def file(width: int, height: int, sections: bytes, stride: int = 16, level: int = 100) -> bytes:
    """A .bkc file, right down to its CRC, of any sections."""
    body = MAGIC + b"\1" + LITE + varint(width) + varint(height) + bytes([stride, level]) + sections
    return body + struct.pack("<I", zlib.crc32(body))


def only(folder: Path, *names: str) -> None:
    """Nothing else is in the folder."""
    assert sorted(p.name for p in folder.iterdir()) == sorted(names), list(folder.iterdir())
