"""Measures lite against Pillow's JPEG, WebP and AVIF on a folder of photos: real files.

    python scripts/kodak_bar.py PHOTOS [--model BUNDLE]

Prints mean bpp, PSNR (RGB) and MS-SSIM (RGB) for each quality, then the BD-rates over 0.06-0.7 bpp.
Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import bjontegaard
import numpy as np
import torch
from PIL import Image
from pytorch_msssim import ms_ssim

import bkcodec

QUALITIES = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100)
PEERS = {
    "jpeg": ((1, 3, 5, 8, 12, 17, 23, 30, 38, 47, 57, 67), {"optimize": True, "progressive": True}),
    "webp": ((0, 1, 3, 8, 15, 25, 38, 52, 66, 78), {"method": 6}),
    "avif": ((1, 5, 10, 15, 22, 29, 36, 43, 50, 57, 64), {"speed": 4}),
}
RANGE = (0.06, 0.7)  # bpp over which the BD-rates are taken

Row = tuple[float, float, float]  # bpp, PSNR in dB, MS-SSIM
Roundtrip = Callable[[Image.Image], tuple[bytes, Image.Image]]


def score(original: Image.Image, decoded: Image.Image, n_bytes: int) -> Row:
    a, b = (
        torch.from_numpy(np.array(i.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        for i in (original, decoded)
    )
    psnr = -10 * torch.log10((a - b).square().mean()).item()
    return (
        8 * n_bytes / (original.width * original.height),
        psnr,
        ms_ssim(a, b, data_range=1).item(),
    )


def mean_row(photos: list[Path], roundtrip: Roundtrip) -> Row:
    rows = []
    for path in photos:
        original = Image.open(path)
        data, decoded = roundtrip(original)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "file")
            file.write_bytes(data)
            rows.append(score(original, decoded, file.stat().st_size))
    bpp, psnr, similarity = np.mean(rows, axis=0)
    return float(bpp), float(psnr), float(similarity)


def peer(name: str, quality: int) -> Roundtrip:
    def roundtrip(image: Image.Image) -> tuple[bytes, Image.Image]:
        out = io.BytesIO()
        image.convert("RGB").save(out, name.upper(), quality=quality, **PEERS[name][1])
        return out.getvalue(), Image.open(io.BytesIO(out.getvalue()))

    return roundtrip


def bkc(model: str, quality: float) -> Roundtrip:
    codec = bkcodec.Codec(model)

    def roundtrip(image: Image.Image) -> tuple[bytes, Image.Image]:
        data = codec.encode(image, bkcodec.EncodeOptions(quality=quality))
        return data, codec.decode(data)

    return roundtrip


def bd_rate(anchor: list[Row], test: list[Row], metric: int) -> float:
    """BD-rate in percent; both curves are cut to RANGE first, as far as they reach.

    The curves are interpolated over log rate (24 points, linear), then compared (akima).
    """
    cut = []
    for rows in (anchor, test):
        rate = np.array([r[0] for r in rows])
        value = np.array([r[metric] for r in rows])
        dense = np.geomspace(max(RANGE[0], rate[0]), min(RANGE[1], rate[-1]), 24)
        cut.append((dense, np.interp(np.log(dense), np.log(rate), value)))
    (rate_a, value_a), (rate_t, value_t) = cut
    return float(
        bjontegaard.bd_rate(rate_a, value_a, rate_t, value_t, method="akima", min_overlap=0.0)
    )


def curve(name: str, photos: list[Path], ladder: Sequence[float], model: str) -> list[Row]:
    rows = []
    for quality in ladder:
        row = mean_row(photos, bkc(model, quality) if name == "lite" else peer(name, int(quality)))
        rows.append(row)
        print(f"{name} {quality:5g}  {row[0]:.4f} bpp  {row[1]:.2f} dB  {row[2]:.4f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="lite")
    given = parser.parse_args()
    photos = sorted(given.photos.glob("*.png"))
    lite = curve("lite", photos, QUALITIES, given.model)
    for name, (ladder, _) in PEERS.items():
        anchor = curve(name, photos, ladder, given.model)
        for metric, label in ((1, "PSNR"), (2, "MS-SSIM")):
            rate = bd_rate(anchor, lite, metric)
            low, high = RANGE
            print(f"BD-rate of lite, {label}, against {name}, {low}-{high} bpp: {rate:+.1f} %")


if __name__ == "__main__":
    main()
