"""The figures of docs/bk-sdm.md: what the bk-sdm bundle gives with a pretrained VAE.

    python scripts/figures/bk_sdm.py measure PHOTOS VAE LPIPS FOLDER [NAMES [PART/PARTS]]
    python scripts/figures/bk_sdm.py table FOLDER
    python scripts/figures/bk_sdm.py sheet PHOTO VAE SHEET.png

"measure" encodes every photo at every quality into a file of FOLDER and decodes that file as
(mean) the hyper-decoder's mean without a U-Net, (one) one step and (four) four steps of the
bundle's own U-Net, (default) one step at the usual realism; "ceiling" is the VAE's round trip. All
pictures are rounded to 8 bits. NAMES is what to measure, all five by default; PART/PARTS shares the
photos among processes.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from common import judge
from PIL import Image

import bkcodec
from bkcodec.bench.coders import image_to_tensor
from bkcodec.bench.metrics import find_metrics
from bkcodec.options import Backbone

QUALITIES = (0, 14, 28, 42, 56, 70, 85, 100)
DECODINGS = {
    "mean": bkcodec.DecodeOptions(realism=0.0),
    "one": bkcodec.DecodeOptions(realism=1.0),
    "four": bkcodec.DecodeOptions(steps=4, realism=1.0),
    "default": bkcodec.DecodeOptions(),
}
CEILING = "ceiling"
SHEET_QUALITIES = (0, 25, 50, 100)
DETAIL = (250, 150, 506, 406)  # of the photo on the sheet


def open_codec(vae: str) -> bkcodec.Codec:
    return bkcodec.Codec("bk-sdm", "cpu", Backbone(vae=vae, unet="own"))


@torch.inference_mode()
def round_trip(codec: bkcodec.Codec, image: Image.Image) -> Image.Image:
    """The photo through the VAE alone."""
    x = image_to_tensor(image)
    y = codec.model.encode(x) / codec.model.y_std
    x_hat = codec.model.reconstruct(y, (image.height, image.width))[0].clamp(0, 1)
    return Image.fromarray(x_hat.mul(255).round().byte().permute(1, 2, 0).numpy())


def analyse_once(codec: bkcodec.Codec) -> None:
    """All qualities of a photo share z, which the VAE takes seconds for."""
    analyse, kept = codec.encoder.analyse, {}

    def cached(rgb: np.ndarray, tile: int | None, keep_y: bool) -> object:
        key = rgb.tobytes()
        if key not in kept:
            kept.clear()
            kept[key] = analyse(rgb, tile, keep_y)
        return kept[key]

    codec.encoder.analyse = cached  # type: ignore[method-assign, assignment]


def measure(
    photos: list[Path], vae: str, lpips_file: Path, folder: Path, names: list[str], table: Path
) -> None:
    """Decode files as named; files that are not in the folder yet are encoded first."""
    codec, lpips = open_codec(vae), [lpips_file]
    metrics = find_metrics(["psnr", "ms-ssim", "lpips-sq"], lpips)
    analyse_once(codec)
    folder.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as out:
        writer = csv.writer(out)
        for photo in photos:
            original = Image.open(photo).convert("RGB")
            if CEILING in names:
                figures = judge(original, round_trip(codec, original), metrics)
                writer.writerow([photo.name, "", CEILING, 0, *figures])
            for quality in QUALITIES:
                file = folder / f"{photo.stem}-q{quality}.bkc"
                if not file.exists():
                    options = bkcodec.EncodeOptions(quality=quality)
                    file.write_bytes(codec.encode(original, options))
                bpp = 8 * file.stat().st_size / (original.width * original.height)
                for name in set(names) & DECODINGS.keys():
                    decoded = codec.decode(file.read_bytes(), DECODINGS[name])
                    writer.writerow(
                        [photo.name, quality, name, bpp, *judge(original, decoded, metrics)]
                    )
            out.flush()


def print_table(files: list[Path]) -> None:
    rows: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for path in files:
        for _, quality, name, *figures in csv.reader(path.open(newline="")):
            rows[quality, name].append([float(f) for f in figures])
    means = {key: np.mean(values, axis=0) for key, values in rows.items()}
    _, psnr, similarity, distance = means["", CEILING]
    print(
        f"{len(rows['', CEILING])} photos; ceiling (the VAE alone): {psnr:.2f} dB, "
        f"MS-SSIM {similarity:.4f}, LPIPS-SQ {distance:.4f}\n"
    )
    names = [f"{metric} {name}" for metric in ("PSNR", "MS-SSIM", "LPIPS-SQ") for name in DECODINGS]
    print(f"| q | bpp | {' | '.join(names)} |")
    print("|---" * (2 + len(names)) + "|")
    for quality in map(str, QUALITIES):
        found = [means[quality, name] for name in DECODINGS]
        cells = [f"{f[1]:.2f}" for f in found]
        cells += [f"{f[2]:.4f}" for f in found] + [f"{f[3]:.4f}" for f in found]
        print(f"| {quality} | {found[0][0]:.4f} | {' | '.join(cells)} |")


def sheet(photo: Path, vae: str, path: Path) -> None:
    """One row per quality: original, the VAE's round trip, then each way of decoding."""
    codec, original = open_codec(vae), Image.open(photo).convert("RGB")
    ceiling = round_trip(codec, original)
    side = DETAIL[2] - DETAIL[0]
    out = Image.new("RGB", ((2 + len(DECODINGS)) * side, len(SHEET_QUALITIES) * side))
    for row, quality in enumerate(SHEET_QUALITIES):
        data = codec.encode(original, bkcodec.EncodeOptions(quality=quality))
        pictures = [original, ceiling, *(codec.decode(data, how) for how in DECODINGS.values())]
        for column, picture in enumerate(pictures):
            out.paste(picture.crop(DETAIL), (column * side, row * side))
    out.save(path)


def main() -> None:
    command, *rest = sys.argv[1:]
    if command == "measure":
        photos, vae, lpips_file, folder = rest[:4]
        names = rest[4] if len(rest) > 4 else ",".join([CEILING, *DECODINGS])
        part = rest[5] if len(rest) > 5 else "0/1"
        first, step = map(int, part.split("/"))
        chosen = sorted(Path(photos).glob("*.png"))[first::step]
        table = Path(folder) / f"{names}-{first}.csv"
        measure(chosen, vae, Path(lpips_file), Path(folder), names.split(","), table)
    elif command == "table":
        print_table(sorted(Path(rest[0]).glob("*.csv")))
    else:
        sheet(Path(rest[0]), rest[1], Path(rest[2]))


if __name__ == "__main__":
    main()
