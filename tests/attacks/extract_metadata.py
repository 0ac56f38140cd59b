"""Extracted metadata overwrites nothing, and goes to no terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.attacks.common import ONE_CELL, ROOT, bkcodec, file, refused, section

COMMANDS = b"\x1b]0;owned\x07\x1b[2J"  # sets a terminal's title and clears it


def attack(folder: Path) -> str:
    path = folder / "x.bkc"
    path.write_bytes(file(1, 1, ONE_CELL + section(0x83, b"\0" + COMMANDS)))
    victim = folder / "victim"
    victim.write_bytes(b"precious")
    (folder / "link").symlink_to(victim)
    for target in ("victim", "link"):
        refused(bkcodec("info", path, "--extract", "exif", "-o", target, cwd=folder), 3)
    refused(bkcodec("info", path, "--extract", "exif", "-o", "./x.bkc", "-f", cwd=folder), 2)
    refused(bkcodec("info", path, "--extract", "icc", "-o", "icc", cwd=folder), 3)
    assert bkcodec("info", path, "--extract", "exif", "-o", "-", cwd=folder).out == COMMANDS
    shown = on_a_terminal("info", path, "--extract", "exif", "-o", "-")
    assert b"terminal" in shown and b"\x1b" not in shown
    assert victim.read_bytes() == b"precious" and path.read_bytes()[-20:-4].endswith(COMMANDS[-9:])
    return "exit 3 where something is in the way; a terminal as output is refused"


def on_a_terminal(*arguments: object) -> bytes:
    """What the program writes where all its streams are a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bkcodec", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how Linux says that the other side is closed
        pass
    process.wait()
    os.close(ours)
    return shown
