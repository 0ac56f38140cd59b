"""The slowest valid files that we know: python scripts/figures/slow.py [PHOTO].

CPU seconds of whole processes on one thread, medians of three, for 1,024 x 1,024 pixels. They are
the table of SECURITY.md, which says what a server has to expect.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from processes import measured

SAMPLE = Path(__file__).resolve().parents[2] / "tests" / "samples" / "lake.png"
SIDE = 1024
SCANS = 250


def seconds(*arguments: object) -> float:
    """CPU seconds of a command on one thread, the median of three."""
    return statistics.median(
        measured("-m", "bkcodec", *arguments, OMP_NUM_THREADS="1").cpu for _ in range(3)
    )


def many_scans(photo: Image.Image) -> bytes:
    """A progressive JPEG file whose last scan is there again and again."""
    out = io.BytesIO()
    photo.save(out, "JPEG", progressive=True)
    data = out.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * (SCANS - data.count(b"\xff\xda")) + data[-2:]


def main() -> None:
    with Image.open(sys.argv[1] if len(sys.argv) > 1 else SAMPLE) as image:
        photo = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        photo.save(here / "photo.png")
        Image.fromarray(noise[..., :3]).save(here / "noise.png")
        photo.putalpha(Image.fromarray(noise[..., 3]))
        photo.save(here / "alpha.png")
        (here / "scans.jpg").write_bytes(many_scans(photo.convert("RGB")))

        for what, name, quality in (
            ("a photo at quality 50", "photo.png", 50),
            ("noise at quality 100", "noise.png", 100),
            ("a photo with an alpha plane of noise", "alpha.png", 50),
            (f"a JPEG file of {SCANS} scans", "scans.jpg", 50),
        ):
            file = (here / name).with_suffix(".bkc")
            encode = seconds("encode", here / name, "-o", file, "-q", quality, "-f")
            decode = seconds("decode", file, "-o", here / "out.png", "-f")
            print(f"{what}: encode {encode:.1f}, decode {decode:.1f}", flush=True)
        file = here / "photo.bkc"
        for extra in (["--tile", 256], ["--steps", 50]):
            decode = seconds("decode", file, "-o", here / "out.png", "-f", *extra)
            print(f"decode {extra[0]} {extra[1]}: {decode:.1f}", flush=True)
        print(f"info --verify: {seconds('info', '--verify', file):.1f}")


if __name__ == "__main__":
    main()
