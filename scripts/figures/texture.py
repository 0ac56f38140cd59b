"""What several denoising steps give: python scripts/figures/texture.py PHOTOS LPIPS [SHEET PHOTO].

For each photo at 0.1 bpp or less, from the same file: LPIPS-SQ and PSNR of one step and of four
steps with realism 1. LPIPS is the weights file that ``bkcodec train --lpips`` takes. With SHEET,
also writes a contact sheet of details of one PHOTO: original, one step, four steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import judge, sheet
from PIL import Image

import bkcodec
from bkcodec.bench.metrics import find_metrics

STEPS = {"one step": 1, "four steps": 4}
RATES = (0.05, 0.1)  # bpp
DETAIL = 192  # pixels, shown twice as large


def decode(codec: bkcodec.Codec, data: bytes) -> dict[str, Image.Image]:
    return {
        name: codec.decode(data, bkcodec.DecodeOptions(steps=n, realism=1.0))
        for name, n in STEPS.items()
    }


def details(codec: bkcodec.Codec, photo: Path, path: Path) -> None:
    original = Image.open(photo).convert("RGB")
    data = codec.encode(original, bkcodec.EncodeOptions(target_bpp=RATES[-1]))
    pictures = [original, *decode(codec, data).values()]
    corners = [
        (original.width // 8, original.height // 4),
        (original.width // 2, original.height // 2),
    ]
    rows = [
        [picture.crop((left, top, left + DETAIL, top + DETAIL)) for picture in pictures]
        for left, top in corners
    ]
    sheet(rows).save(path)


def main() -> None:
    photos = sorted(Path(sys.argv[1]).glob("*.png"))
    metrics = find_metrics(["lpips-sq", "psnr"], [Path(sys.argv[2])])
    codec = bkcodec.Codec(device="cpu")
    for rate in RATES:
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in STEPS}
        for path in photos:
            original = Image.open(path).convert("RGB")
            data = codec.encode(original, bkcodec.EncodeOptions(target_bpp=rate))
            for name, picture in decode(codec, data).items():
                distance, psnr = judge(original, picture, metrics)
                rows[name].append((distance, psnr))
        means = {name: np.mean(values, axis=0) for name, values in rows.items()}
        for name, (distance, psnr) in means.items():
            print(f"{rate} bpp  {name:<10}  LPIPS-SQ {distance:.4f}  PSNR {psnr:.2f} dB")
        change = 100 * (means["four steps"][0] / means["one step"][0] - 1)
        print(f"{rate} bpp  LPIPS-SQ of four steps against one: {change:+.1f} %", flush=True)
    if len(sys.argv) > 4:
        details(codec, Path(sys.argv[4]), Path(sys.argv[3]))


if __name__ == "__main__":
    main()
