"""Time and memory from 1 to 100 megapixels: python scripts/figures/huge.py PHOTOS FOLDER.

Each picture is a wall of the photos at twice their size, as a JPEG. Fresh processes encode it, and
decode it to PPM and to PNG; printed are medians of their seconds and peaks of their memory, of five
runs up to 12 megapixels and of one above, then how far what is made in bands is from one piece at
24 megapixels (which takes about 4 GB).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import measured

SIZES = [(1200, 834), (2448, 1634), (4032, 3024), (6000, 4000), (8660, 5774), (12248, 8165)]


def wall(photos: Path, width: int, height: int, path: Path) -> None:
    """A picture of a given size, of the photos at twice their size side by side."""
    from PIL import Image

    picture, x, y, number = Image.new("RGB", (width, height)), 0, 0, 0
    paths = sorted(photos.glob("*.png"))
    while y < height:
        with Image.open(paths[number % len(paths)]) as photo:
            upright = photo if photo.width > photo.height else photo.rotate(90, expand=True)
            large = upright.resize(
                (2 * upright.width, 2 * upright.height), Image.Resampling.BICUBIC
            )
        picture.paste(large, (x, y))
        number, x = number + 1, x + large.width
        if x >= width:
            x, y = 0, y + large.height
    picture.save(path, quality=92)


def median(runs: int, *arguments: object) -> str:
    """Seconds and peak MB of a process that runs so often, as columns of a table."""
    found = sorted(measured(*arguments) for _ in range(runs))
    return f"{found[runs // 2].clock:.2f} s | {max(one.peak for one in found):,.0f} MB"


def compare(one: Path, other: Path) -> None:
    """How far two pictures are from each other."""
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    a, b = (np.asarray(Image.open(path)).astype(np.int16) for path in (one, other))
    far = np.abs(a - b)
    print(f"tiles against one piece: at most {far.max()} of 255, {(far > 0).mean():.2e} differ")


def main() -> None:
    if sys.argv[1] == "--wall":
        wall(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
        return
    if sys.argv[1] == "--compare":
        compare(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    photos, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    heads = "size | megapixels | bytes | encode | peak | to PPM | peak | to PNG | peak"
    print(f"| {heads} |\n{9 * '|---'}|")
    program = ("-m", "bkcodec")
    for width, height in SIZES:
        photo, file, ppm, png = (
            folder / f"{width}.{kind}" for kind in ("jpg", "bkc", "ppm", "png")
        )
        measured(__file__, "--wall", photos, width, height, photo)
        runs = 5 if width * height < 13e6 else 1
        works = [("encode", photo, file), ("decode", file, ppm), ("decode", file, png)]
        times = " | ".join(median(runs, *program, work, a, "-o", b, "-f") for work, a, b in works)
        size = f"{width} x {height} | {width * height / 1e6:.1f} | {file.stat().st_size:,}"
        print(f"| {size} | {times} |", flush=True)
        if width == 6000:
            whole = folder / "whole.png"
            measured(*program, "decode", file, "-o", whole, "-f", "--tile", "off")
            subprocess.run([sys.executable, __file__, "--compare", png, whole], check=True)


if __name__ == "__main__":
    main()
