"""A large tar shard with 5 % damaged members: the rest done, the bad listed, memory flat."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

from PIL import Image

from tests.attacks.common import bkcodec
from tests.faults.common import SAMPLE


def shard(path: Path, n: int, bad: int = 0, seed: int = 0) -> set[str]:
    """A shard of ``n`` samples, each a small photo with its label; names of the damaged photos."""
    rng, size = random.Random(seed), (144, 96)
    damaged = {f"{i:06}.jpg" for i in rng.sample(range(n), bad)}
    with Image.open(SAMPLE) as lake, tarfile.open(path, "w") as archive:
        for i in range(n):
            x, y = rng.randrange(lake.width - size[0]), rng.randrange(lake.height - size[1])
            file = io.BytesIO()
            lake.convert("RGB").crop((x, y, x + size[0], y + size[1])).save(file, "JPEG")
            photo = file.getvalue()
            photo = photo[: len(photo) // 2] if f"{i:06}.jpg" in damaged else photo
            for kind, data in (("jpg", photo), ("json", json.dumps({"n": i}).encode())):
                member = tarfile.TarInfo(f"{i:06}.{kind}")
                member.size, member.mtime, member.mode = len(data), 1_700_000_000 + i, 0o640
                archive.addfile(member, io.BytesIO(data))
    return damaged


def others(path: Path, damaged: set[str]) -> list[tuple[object, ...]]:
    """What is to stay: name, mode, time and content of labels and damaged photos."""
    with tarfile.open(path, "r|") as archive:
        return [
            (m.name, m.mode, m.mtime, hashlib.sha256(archive.extractfile(m).read()).digest())  # type: ignore[union-attr]
            for m in archive
            if m.name.endswith(".json") or m.name in damaged
        ]


def fault(folder: Path, count: int = 1000) -> str:
    """``count`` samples are twice as many members."""
    few, many = folder / "few.tar", folder / "many.tar"
    damaged_few = shard(few, count // 20, count // 400)
    damaged = shard(many, count, count // 20)
    peaks = []
    for path, bad in ((few, damaged_few), (many, damaged)):
        out = folder / f"out-{path.name}"
        done = bkcodec("encode", path, "-o", out, "-j", 2, cwd=folder)
        assert done.code == (1 if bad else 0), done.err
        listed = json.loads(out.with_suffix(".errors.json").read_text()) if bad else []
        assert {row["member"] for row in listed} == bad
        back = folder / f"back-{path.name}"
        assert bkcodec("decode", out, "-o", back, "-j", 2, cwd=folder).code == 0
        assert others(path, bad) == others(out, bad) == others(back, bad)
        peaks.append(done.peak)
    with tarfile.open(folder / "out-many.tar", "r|") as archive:
        n_done = sum(m.name.endswith(".bkc") for m in archive)
    assert n_done == count - len(damaged)
    growth = peaks[1] / peaks[0] - 1
    assert abs(growth) < 0.05 or count < 1000, peaks
    return (
        f"{n_done} of {count} photos done, {len(damaged)} listed, exit 1; all other members "
        f"identical, also after the way back; {peaks[1]:.1f} MiB at the peak for {2 * count} "
        f"members, {peaks[0]:.1f} MiB for {count // 10} ({100 * growth:+.1f} %)"
    )
