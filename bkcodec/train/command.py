"""``bkcodec train``: the options, and what they start. PyTorch is loaded when a run begins."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bkcodec.errors import BkcError, InputError, UnsupportedError, UsageError
from bkcodec.options import positive_range


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of training photos.")
@click.option("--val", type=click.Path(path_type=Path), help="Folder of validation photos.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The run's folder; with --export, the bundle file.",
)
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), help="Length of the run.")
@click.option("--max-steps", type=click.IntRange(1), help="Length of the run.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--image-size",
    type=click.IntRange(176),
    default=192,
    show_default=True,
    help="Side of the square crops in pixels.",
)
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=6e-4, show_default=True)
@click.option(
    "--lambda",
    "lambda_",
    type=positive_range,
    metavar="LOW:HIGH",
    default="1e-4:0.06",
    show_default=True,
    help="Rate-distortion trade-offs at quality 0 and 100.",
)
@click.option(
    "--N",
    "n",
    type=click.IntRange(8),
    default=128,
    show_default=True,
    help="Width of the VAE at 1/8 resolution.",
)
@click.option(
    "--M", "m", type=click.IntRange(8, 768), default=224, show_default=True, help="Channels of z."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option(
    "--init-from", metavar="BUNDLE", help="Name or file of a bundle whose networks to start from."
)
@click.option("--ms-ssim-weight", type=click.FloatRange(0, 1), default=0.7, show_default=True)
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder.")
@click.option(
    "--export",
    "run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Write the bundle of a finished run instead of training.",
)
@click.option("--name", default="custom", show_default=True, help="Of the exported bundle.")
@click.option(
    "--data-note",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Text file on the photos' origin and licences, for the provenance record.",
)
def train(**given: Any) -> None:
    """Train a bundle, or export one from a finished run (needs the extra bkcodec[train])."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        from bkcodec.models.compression import ModelConfig
        from bkcodec.train import export, loop
    except ImportError as error:
        raise UnsupportedError(
            f"training needs the extra packages ({error}): pip install 'bkcodec[train]'"
        ) from error
    if given["run"] is not None:
        _need_folder(given["data"], "--data (the tables are counted over these photos)")
        note = given["data_note"].read_text("utf-8") if given["data_note"] else None
        export.export_run(given["run"], given["data"], given["output"], given["name"], note)
        return
    if given["max_minutes"] is None and given["max_steps"] is None:
        raise UsageError("--max-minutes or --max-steps is needed")
    for name in ("data", "val"):
        _need_folder(given[name], f"--{name}")
    options = loop.TrainOptions(
        batch_size=given["batch_size"], image_size=given["image_size"],
        max_minutes=given["max_minutes"], max_steps=given["max_steps"], lr=given["lr"],
        lambda_min=given["lambda_"][0], lambda_max=given["lambda_"][1], seed=given["seed"],
        ms_ssim_weight=given["ms_ssim_weight"],
    )  # fmt: skip
    config = ModelConfig(N=given["n"], M=given["m"])
    record = {"options": asdict(options), "model": asdict(config), "data": given["data"].name,
              "command": "bkcodec " + " ".join(sys.argv[1:])}  # fmt: skip
    init = None
    if given["init_from"] is not None:
        import torch

        from bkcodec.bundle import find_bundle, load_bundle

        bundle = load_bundle(find_bundle(given["init_from"]))
        init = {k: torch.from_numpy(v).float() for k, v in bundle.networks.items()}
        record["init_from"] = {"name": bundle.name, "fingerprint": bundle.fingerprint.hex(),
                               "provenance": bundle.header["provenance"]}  # fmt: skip
    try:
        loop.start(options, config, given["data"], given["val"], given["output"], record,
                   resume=given["resume"], device=given["device"], init=init)  # fmt: skip
    except FloatingPointError as error:
        raise BkcError(str(error)) from error


def _need_folder(folder: Path | None, name: str) -> None:
    if folder is None:
        raise UsageError(f"{name} is needed")
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
