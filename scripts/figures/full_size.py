"""Encodes and decodes with BK-SDM's full-size architectures and random weights, through the CLI.

python scripts/figures/full_size.py CONFIGS FOLDER [--device cuda]

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
VAE_PARAMETERS = 83_653_863
SIZES = ((512, 512), (768, 512), (517, 389))
LARGE = (1024, 1024)  # with the largest U-Net only
SAMPLE = Path(__file__).resolve().parents[2] / "tests" / "samples" / "lake.png"


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
    vae = AutoencoderKL(**known(AutoencoderKL, config))
    assert sum(p.numel() for p in vae.parameters()) == VAE_PARAMETERS
    vae.half().save_pretrained(target / "vae")
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
    options = ("--device", given.device, "-f")
    print("| network | parameters | size | seconds | peak memory |\n|---|---|---|---|---|")

    def report(network: str, parameters: int, size: tuple[int, int], *call: object) -> None:
        seconds, memory = measured(*call, *options)
        size_text = f"{size[0]} x {size[1]}"
        print(
            f"| {network} | {parameters:,} | {size_text} | {seconds:.1f} | {memory:.1f} GB |",
            flush=True,
        )

    for name in [given.only] if given.only else PARAMETERS:
        directory = make(name, given.configs, given.folder)
        for size in (*SIZES, LARGE) if name == "base" else SIZES:
            stem = f"{size[0]}x{size[1]}"
            photo, file = given.folder / f"{stem}.png", given.folder / f"{stem}.bkc"
            if not file.exists():
                with Image.open(SAMPLE) as image:
                    image.convert("RGB").resize(size).save(photo)
                report(
                    "encode: VAE",
                    VAE_PARAMETERS,
                    size,
                    "encode",
                    photo,
                    "-o",
                    file,
                    "-m",
                    "bk-sdm",
                    "--vae",
                    directory / "vae",
                )
            picture = given.folder / f"{stem}-{name}.png"
            report(
                f"decode: {name} and VAE",
                PARAMETERS[name],
                size,
                "decode",
                file,
                "-o",
                picture,
                "--bk-sdm",
                directory,
            )
            with Image.open(picture) as image:
                assert image.size == size
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
