"""What --effort gives: python scripts/figures/effort.py PHOTOS EFFORT [QUALITIES] [TUNE].

For each photo, the plain files of a ladder of qualities are the curve that files of an effort are
held against: by how many per cent they are smaller at the same PSNR and at the same MS-SSIM in dB.
Prints means over photos and qualities, and CPU seconds for each encode.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bkcodec import Codec, EncodeOptions
from bkcodec.metrics import ms_ssim, psnr

LADDER = range(0, 101, 4)


def figures(codec: Codec, photo: np.ndarray, data: bytes) -> tuple[float, float, float]:
    """Logarithm of the size, PSNR and MS-SSIM in dB."""
    shown = np.asarray(codec.decode(data).convert("RGB"))
    similarity = ms_ssim(photo, shown)
    assert similarity is not None, "photos of 161 pixels and more"
    return math.log(len(data)), psnr(photo, shown), -10 * math.log10(1 - similarity)


def main(photos: Path, effort: int, qualities: list[float], tune: str) -> None:
    codec, rows = Codec(), []
    for path in sorted(photos.iterdir()):
        photo = np.asarray(Image.open(path).convert("RGB"))
        plain = [codec.encode(photo, EncodeOptions(quality=q)) for q in LADDER]
        curve = np.array([figures(codec, photo, data) for data in plain])
        for quality in qualities:
            options = EncodeOptions(quality=quality, effort=effort, tune=tune)
            began = time.process_time()
            data = codec.encode(photo, options)
            seconds = time.process_time() - began
            size, *values = figures(codec, photo, data)
            gains = [
                100 * (math.exp(size - np.interp(value, curve[:, i], curve[:, 0])) - 1)
                for i, value in enumerate(values, start=1)
            ]
            rows.append([*gains, seconds])
            print(path.name, quality, *(f"{x:+.2f}" for x in rows[-1]), flush=True)
    same_psnr, same_ms_ssim, seconds = np.mean(rows, axis=0)
    print(
        f"effort {effort}, {tune}: {len(rows)} files, bytes at the same PSNR {same_psnr:+.1f} %,",
        end=" ",
    )
    print(f"at the same MS-SSIM {same_ms_ssim:+.1f} %, {seconds:.0f} CPU s each")


if __name__ == "__main__":
    chosen = sys.argv[3] if len(sys.argv) > 3 else "20,50,80"
    tune = sys.argv[4] if len(sys.argv) > 4 else "balanced"
    main(Path(sys.argv[1]), int(sys.argv[2]), [float(q) for q in chosen.split(",")], tune)
