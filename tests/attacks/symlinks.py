"""Links never make the program write through them, loop, or read what is no photo."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.attacks.common import ROOT, bkcodec, refused

PHOTO = ROOT / "tests" / "samples" / "grey4-transparent.png"


def attack(folder: Path) -> str:
    victim = folder / "victim"
    victim.write_bytes(b"precious")
    (folder / "link.bkc").symlink_to(victim)
    (folder / "dangling.bkc").symlink_to(folder / "nowhere")
    for name in ("link.bkc", "dangling.bkc"):
        refused(bkcodec("encode", PHOTO, "-o", name, cwd=folder), 3)
    assert bkcodec("encode", PHOTO, "-o", "link.bkc", "-f", cwd=folder).code == 0
    assert not (folder / "link.bkc").is_symlink()  # the link was replaced, not followed
    tree = folder / "tree"
    tree.mkdir()
    shutil.copy(PHOTO, tree / "photo.png")
    (tree / "passwords.png").symlink_to("/etc/passwd")
    (tree / "loop.png").symlink_to("loop.png")
    (tree / "up").symlink_to("..")
    done = bkcodec("encode", "tree", "-r", "-o", "out/", cwd=folder)
    assert done.code == 1 and "root:" not in done.err and "not an image" in done.err
    assert [p.name for p in (folder / "out").rglob("*")] == ["photo.bkc"]
    assert victim.read_bytes() == b"precious" and not (folder / "nowhere").exists()
    return "links as outputs: refused, with --force replaced; as inputs: read, never followed up"
