"""The picture at the top of the README: python scripts/figures/readme.py docs/compare.jpg.

From left to right a detail of the sample, of its AVIF file (Pillow, speed 4) and of a lite file
that is no larger. Prints the sizes.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from common import sheet
from PIL import Image

import bkcodec

SAMPLE = Path(__file__).resolve().parents[2] / "tests" / "samples" / "lake.png"
AVIF = {"quality": 1, "speed": 4}  # the smallest that it makes
DETAIL = (384, 212, 768, 512)


def main() -> None:
    original = Image.open(SAMPLE).convert("RGB")
    file = io.BytesIO()
    original.save(file, "AVIF", **AVIF)
    n_bytes = len(file.getvalue())
    data = bkcodec.encode(original, bkcodec.EncodeOptions(target_size=n_bytes))
    pictures = [original, Image.open(file).convert("RGB"), bkcodec.decode(data)]
    sheet([[picture.crop(DETAIL) for picture in pictures]], 1).save(sys.argv[1], quality=90)
    print(f"AVIF {n_bytes} bytes, lite {len(data)} bytes, {original.width} x {original.height}")


if __name__ == "__main__":
    main()
