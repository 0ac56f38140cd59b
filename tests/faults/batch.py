"""A big batch with 5 % bad inputs: the good done, the bad listed, memory flat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.attacks.common import bkcodec
from tests.faults.common import ROOT, contents, photos

BAD = (b"", b"no photo", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0")


def fault(folder: Path, count: int = 1000) -> str:
    source = photos(folder / "photos", count - count // 20, (144, 96))
    for i in range(count // 20):
        bad = BAD[i % 5] if i % 5 < len(BAD) else (source / "0000.png").read_bytes()[:900]
        (source / f"bad{i:03}.png").write_bytes(bad)
    some = photos(folder / "some", count // 10, (144, 96))
    few = bkcodec("encode", some, "-o", f"{folder}/few/", "-j", 2, cwd=folder)
    many = bkcodec("encode", source, "-o", f"{folder}/many/", "-j", 2, "--json", cwd=folder)
    assert few.code == 0 and many.code == 1, (few.err, many.err[-300:])
    *rows, last = [json.loads(line) for line in many.out.splitlines()]
    failed = {Path(row["input"]).name for row in rows if "error" in row}
    assert len(rows) == count and failed == {p.name for p in source.glob("bad*")}
    assert all(f"{name}: " in many.err for name in failed)
    assert last["summary"]["failed"] == count // 20
    done = contents(folder / "many")
    assert len(done) == count - count // 20
    check = "import sys, pathlib, bkcodec\nfor p in pathlib.Path(sys.argv[1]).iterdir():\n"
    check += "    bkcodec.info(p.read_bytes(), verify=True)\n"
    subprocess.run([sys.executable, "-c", check, folder / "many"], check=True, cwd=ROOT)
    growth = many.peak / few.peak - 1
    assert growth < 0.1, (few.peak, many.peak)
    return (
        f"{len(done)} of {count} done, {len(failed)} listed, exit 1; {many.peak:.0f} MiB at "
        f"the peak, {few.peak:.0f} MiB for {count // 10} ({100 * growth:+.1f} %)"
    )
