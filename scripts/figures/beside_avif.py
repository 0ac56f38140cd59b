"""lite beside AVIF at equal bytes: python scripts/figures/beside_avif.py SHEET.jpg PHOTO...

A row for each photo: a detail of the original, then for each rate of the AVIF file (Pillow, speed
4, the tune iq) that comes closest to it and of a lite file that is no larger. Prints the sizes.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from common import sheet
from PIL import Image

import bkcodec

RATES = (0.05, 0.1, 0.25)  # bpp
SIZE = (192, 160)  # of a detail
WINDOW = 16  # pixels, over which it is looked for where a photo is busiest


def avif(photo: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    photo.save(file, "AVIF", quality=quality, speed=4)
    return file.getvalue()


def closest(photo: Image.Image, n_bytes: int) -> bytes:
    """The largest AVIF file of at most so many bytes, or the smallest there is."""
    low, high = 0, 100
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(avif(photo, middle)) <= n_bytes else (low, middle)
    return avif(photo, low)


def detail(photo: Image.Image) -> tuple[int, int, int, int]:
    """Where the gradients of a photo, in the mean over a detail, are largest."""
    grey = np.asarray(photo.convert("L"), np.float32)
    change = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    rows, columns = (n // WINDOW for n in change.shape)
    cells = change[: rows * WINDOW, : columns * WINDOW].reshape(rows, WINDOW, columns, WINDOW)
    busy = cells.mean(axis=(1, 3))
    high, wide = SIZE[1] // WINDOW, SIZE[0] // WINDOW
    sums = np.lib.stride_tricks.sliding_window_view(busy, (high, wide)).mean(axis=(2, 3))
    top, left = (int(n) * WINDOW for n in np.unravel_index(sums.argmax(), sums.shape))
    return left, top, left + SIZE[0], top + SIZE[1]


def main() -> None:
    codec, rows = bkcodec.Codec(device="cpu"), []
    for path in map(Path, sys.argv[2:]):
        photo = Image.open(path).convert("RGB")
        pictures, sizes = [photo], []
        for rate in RATES:
            other = closest(photo, int(rate * photo.width * photo.height / 8))
            own = codec.encode(photo, bkcodec.EncodeOptions(target_size=len(other)))
            pictures += [Image.open(io.BytesIO(other)).convert("RGB"), codec.decode(own)]
            sizes.append(f"AVIF {len(other)}, lite {len(own)} bytes")
        box = detail(photo)
        rows.append([picture.crop(box) for picture in pictures])
        print(f"{path.name} at {box[:2]}: {'; '.join(sizes)}", flush=True)
    sheet(rows, 1).save(sys.argv[1], quality=88)


if __name__ == "__main__":
    main()
