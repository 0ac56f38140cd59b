"""Names of inputs cannot lead outputs out of their folder, nor overwrite anything."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.attacks.common import ROOT, bkcodec, refused

PHOTO = ROOT / "tests" / "samples" / "grey4-transparent.png"
ODD = ["..png.png", "-f.png", "a b.png", "new\nline.png", "-.png", "%2e%2e%2fx.png", "..\\x.png"]


def attack(folder: Path) -> str:
    secret = folder / "secret.bkc"
    secret.write_bytes(b"precious")
    tree = folder / "tree"
    (tree / "deep" / ".." / "deep" / "er").mkdir(parents=True)
    for name in ODD:
        shutil.copy(PHOTO, tree / "deep" / "er" / name)
    done = bkcodec("encode", "tree", "-r", "-o", "out/", cwd=folder)
    assert done.code == 0, done.err
    made = {p for p in folder.rglob("*.bkc")} - {secret}
    assert len(made) == len(ODD) and all(folder / "out" / "deep" / "er" == p.parent for p in made)
    for target in ("../" + folder.name + "/secret.bkc", "secret.bkc", f"{folder}/./secret.bkc"):
        refused(bkcodec("encode", PHOTO, "-o", target, cwd=folder), 3)
    for target in ("tree", "tree/deep/", "/dev/null", "/proc/self/mem"):
        code = bkcodec("encode", PHOTO, "-o", target, "-f", cwd=folder).code
        assert code in (0, 1, 3), code  # a folder takes the file; devices are no files
    refused(
        bkcodec(
            "encode",
            PHOTO,
            "-o",
            "out/x\0y.bkc".replace("\0", "/../../secret.bkc/"),
            "-f",
            cwd=folder,
        ),
        1,
    )
    same = folder / "same.png"
    shutil.copy(PHOTO, same)
    refused(bkcodec("encode", same, "-o", "./tree/../same.png", "-f", cwd=folder), 2)
    assert secret.read_bytes() == b"precious" and same.read_bytes() == PHOTO.read_bytes()
    assert Path("/dev/null").is_char_device()
    return f"{len(ODD)} odd names stayed below the output folder; the secret and devices remain"
