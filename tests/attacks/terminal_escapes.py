"""Escape codes in names, metadata and bundles do not reach the terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.attacks.common import ONE_CELL, ROOT, bkcodec, file, section
from tests.attacks.extract_metadata import COMMANDS, on_a_terminal

NAME = "a\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\r\n.bkc"


def attack(folder: Path) -> str:
    described = file(
        1, 1, ONE_CELL + section(0x83, b"\0" + COMMANDS) + section(0x84, b"\0" + COMMANDS)
    )
    (folder / NAME).write_bytes(described)
    (folder / "broken.bkc").write_bytes(b"\x8bBKC" + COMMANDS)
    (folder / "bundle").write_bytes(COMMANDS * 9)
    shutil.copy(ROOT / "tests" / "samples" / "grey4-transparent.png", folder / f"{NAME}.png")
    commands = [
        ("info", folder / NAME),
        ("info", folder / "broken.bkc"),
        ("info", f"{NAME}missing"),
        ("info", "--verify", "-m", folder / "bundle", folder / NAME),
        ("decode", folder / NAME),
        ("encode", folder / f"{NAME}.png"),
        ("encode", folder / f"{NAME}.png"),
        ("encode", folder / f"{NAME}.png", "-m", NAME),
        ("decode", folder / NAME, "--format", NAME),
        ("models", "add", folder / NAME, "--name", NAME),
        ("view", folder / NAME, folder / NAME),
        ("view", folder / NAME, "-o", folder / f"{NAME}.html"),
        ("plot", folder / "bundle", "-o", folder / "plot.svg"),
        ("plot", folder / NAME, "-o", folder / f"{NAME}.gif"),
        (NAME,),
    ]
    for arguments in commands:
        shown = on_a_terminal(*arguments)
        text = shown.decode("utf-8", "replace").replace("\r\n", "\n")
        assert shown and all(c.isprintable() or c == "\n" for c in text), (arguments, text)
    assert b"\x1b" not in bkcodec("info", "--json", folder / NAME, cwd=folder).out
    return f"{len(commands)} commands on a terminal: only printable characters"
