"""Encodes and decodes with BK-SDM's full-size architectures and random weights, through the CLI.

python scripts/full_size.py CONFIGS FOLDER [--device cuda]

CONFIGS holds the published configurations (unet_base.json, unet_small.json, unet_tiny.json,
vae.json, scheduler.json); FOLDER gets the models, 0.7 to 1.2 GB each. Random weights decode to
noise: what is proven is that the real models load by their configurations and fit into time and
memory. Prints a table for docs/bk-sdm.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image

PARAMETERS = {"base": 579_384_964, "small": 482_346_884, "tiny": 323_384_964}
SIZES = ((512, 512), (768, 512), (517, 389), (1024, 1024))
SAMPLE = Path(__file__).parents[1] / "tests" / "samples" / "lake.png"


def known(network: type, config: dict[str, object]) -> dict[str, object]:
    import inspect

    names = inspect.signature(network.__init__).parameters  # type: ignore[misc]
    return {k: v for k, v in config.items() if k in names}


def make(name: str, configs: Path, folder: Path) -> Path:
    """A diffusers directory with random weights in float16."""
    target = folder / name
    if target.is_dir():
        return target
    torch.manual_seed(0)
    config = json.loads((configs / f"unet_{name}.json").read_text())
    unet = UNet2DConditionModel(**known(UNet2DConditionModel, config))
    parameters = sum(p.numel() for p in unet.parameters())
    assert parameters == PARAMETERS[name], (name, parameters)
    unet.half().save_pretrained(target / "unet")
    del unet
    config = json.loads((configs / "vae.json").read_text())
    AutoencoderKL(**known(AutoencoderKL, config)).half().save_pretrained(target / "vae")
    config = json.loads((configs / "scheduler.json").read_text())
    DDIMScheduler(**known(DDIMScheduler, config)).save_pretrained(target / "scheduler")
    return target


def measured(*arguments: object) -> tuple[float, float]:
    """Seconds and peak memory (GB) of one call of the command line."""
    started = time.monotonic()
    command = [sys.executable, "-m", "bkcodec", *map(str, arguments)]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command[2:])}")
    return time.monotonic() - started, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=[*PARAMETERS])
    given = parser.parse_args()
    print("| U-Net | parameters | size | encode | memory | decode | memory |")
    print("|---|---|---|---|---|---|---|")
    for name in [given.only] if given.only else PARAMETERS:
        directory = make(name, given.configs, given.folder)
        for width, height in SIZES:
            photo, file = given.folder / "photo.png", given.folder / "photo.bkc"
            with Image.open(SAMPLE) as image:
                image.convert("RGB").resize((width, height)).save(photo)
            options = ("--bk-sdm", directory, "--device", given.device, "-f")
            encode = measured("encode", photo, "-o", file, "-m", "bk-sdm", *options)
            decode = measured("decode", file, "-o", given.folder / "out.png", *options)
            with Image.open(given.folder / "out.png") as image:
                assert image.size == (width, height)
            figures = " | ".join(f"{s:.1f} s | {gb:.1f} GB" for s, gb in (encode, decode))
            print(f"| {name} | {PARAMETERS[name]:,} | {width} x {height} | {figures} |", flush=True)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
