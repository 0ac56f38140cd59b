"""Outputs on a file system that takes none."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.faults.common import contents, finish, mounted, photos


def fault(folder: Path, count: int = 1) -> str:
    source = photos(folder / "photos", 2)
    large = photos(folder / "large", 2, (400, 340))
    assert finish("encode", source, "-o", f"{folder}/files/")[0] == 0
    n = 0
    for _ in range(count):
        with mounted(folder / "disk", "size=1m") as disk:
            (disk / "0000.bkc").write_bytes(b"precious")
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            for command in (
                ("encode", source / "0000.png", "-o", disk / "0000.bkc", "-f"),
                ("encode", source / "0001.png", "-o", f"{disk}/new/"),
                ("decode", folder / "files" / "0000.bkc", "-o", f"{disk}/"),
                ("bench", source, "-o", disk / "bench"),
                ("train", "--data", large, "--val", large, "-o", disk / "run"),
            ):
                code, err, _ = finish(*command)
                assert code and "Traceback" not in err and "Read-only" in err, err
                n += 1
            assert contents(disk) == {"0000.bkc": b"precious"}
        (folder / "disk").rmdir()
    return f"{n} commands refused with one line, nothing changed"
