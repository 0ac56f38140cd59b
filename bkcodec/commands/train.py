"""``bkcodec train``: the options, and what they start. PyTorch is loaded when a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bkcodec.commands.train_names import TrainCommand, read_config
from bkcodec.commands.train_request import Request, check
from bkcodec.commands.train_resume import resumed
from bkcodec.commands.train_talk import talk, what_comes_next
from bkcodec.commands.train_work import carry_out
from bkcodec.commands.values import Number, pair, positive_range, weighted_folder
from bkcodec.options import DEVICES, MAX_SEED
from bkcodec.train.phases import PHASES

FOLDER = click.Path(path_type=Path)


@click.command(
    short_help="Train a bundle, or export one from a finished run.",
    cls=TrainCommand,
    context_settings={"max_content_width": 100},
)
@click.option(
    "--data",
    type=weighted_folder,
    multiple=True,
    metavar="DIR[=WEIGHT]",
    help="Folder of training photos; several folders are mixed by weight.",
)
@click.option("--val", type=FOLDER, help="Folder of validation photos.")
@click.option(
    "-o",
    "--output-dir",
    "output",
    type=FOLDER,
    required=True,
    help="The run's folder; with --export, the file of the bundle.",
)
@click.option(
    "--config",
    type=FOLDER,
    callback=read_config,
    is_eager=True,
    expose_value=False,
    help="TOML file with any of these options; the command line wins.",
)
@click.option(
    "--phase",
    type=click.Choice(list(PHASES)),
    default="joint",
    show_default=True,
    help="What to train: everything; everything on the grids of 8-bit networks; the context prior; "
    "the decoder; the blocks for texture; a fit to a pretrained U-Net; a custom VAE.",
)
@click.option(
    "--rendered",
    type=Number(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the crops that are drawn by the program: text, screens, diagrams, flat colours.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Length of the run in passes over the photos.  [default: 100]",
)
@click.option("--max-steps", type=click.IntRange(1), help="Length of the run in steps.")
@click.option(
    "--max-minutes",
    type=Number(0, min_open=True),
    help="Length of the run in minutes, from its beginning to its last file.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    default=4,
    show_default=True,
    help="Crops per step and process.",
)
@click.option(
    "--image-size",
    type=click.IntRange(176, 4096),
    default=256,
    show_default=True,
    help="Side of the square crops in pixels.",
)
@click.option(
    "--lr",
    type=Number(0, min_open=True),
    default=1e-4,
    show_default=True,
    help="Learning rate.",
)
@click.option(
    "--decay",
    type=Number(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the run at the end in which the learning rate falls. For a run whose length is "
    "not known yet: a small share, and the real length when it is resumed for the last time.",
)
@click.option(
    "--lambda",
    "lambda_",
    type=positive_range,
    metavar="X|LOW:HIGH",
    help="Rate-distortion trade-off; a range is spread over the qualities from 0 to 100.  "
    "[default: 1.5e-4:0.1; 0.035:2 with a pretrained part]",
)
@click.option(
    "--ms-ssim-weight",
    type=Number(0, 1),
    default=0.7,
    show_default=True,
    help="Share of MS-SSIM in the distortion, the rest is MSE.",
)
@click.option(
    "--lpips",
    type=click.Path(dir_okay=False, exists=True),
    help="Safetensors file of LPIPS-SQ weights.",
)
@click.option(
    "--lpips-weight",
    type=Number(0),
    default=0.0,
    show_default=True,
    help="Weight of LPIPS in the distortion.",
)
@click.option(
    "--adversarial-weight",
    type=Number(0),
    default=0.0,
    show_default=True,
    help="Weight of a patch critic in the texture phase.",
)
@click.option(
    "--N",
    "N",
    type=click.IntRange(8, 768),
    help="Width of the networks at 1/8 resolution.  [default: 128; 96 with a pretrained part]",
)
@click.option(
    "--M",
    "M",
    type=click.IntRange(8, 768),
    help="Channels of z.  [default: 128; 64 with a pretrained part]",
)
@click.option(
    "--encoder-depths",
    type=pair,
    metavar="FINE,COARSE",
    help="Blocks of the VAE's encoder at 1/8 and 1/16 (with a pretrained VAE: of h_a at 1/16 and "
    "1/32).  [default: 3,4 (3,3), or those of --init-from]",
)
@click.option(
    "--decoder-depths",
    type=pair,
    metavar="FINE,COARSE",
    help="Blocks of the VAE's decoder at 1/8 and 1/16 (with a pretrained VAE: of h_s).  "
    "[default: 4,4 (4,3), or those of --init-from]",
)
@click.option(
    "--inner",
    type=Number(0.25, 2),
    help="Width inside residual blocks, as a share of their channels.  [default: 0.5, or that "
    "of --init-from]",
)
@click.option(
    "--hidden",
    type=click.IntRange(8, 64),
    help="Width of the context prior's networks.  [default: 48, or that of --init-from]",
)
@click.option(
    "--context-phases",
    type=click.Choice(["1", "2", "4", "7", "10"]),
    help="Phases in which the context prior codes its first group; later ones have at most 4.  "
    "[default: 2, or those of --init-from]",
)
@click.option(
    "--diffusion-steps",
    "sample_steps",
    type=click.IntRange(2, 50),
    default=30,
    show_default=True,
    help="Denoising steps of the sample pictures.",
)
@click.option(
    "--schedule",
    type=click.Choice(["linear", "cosine", "scaled_linear"]),
    default="scaled_linear",
    show_default=True,
    help="Noise schedule of the U-Net.",
)
@click.option("--bk-sdm", type=FOLDER, help="Directory of BK-SDM, for its pretrained parts.")
@click.option("--vae", type=FOLDER, help="Directory of another VAE for the same latents.")
@click.option(
    "--latents",
    type=FOLDER,
    help="File that keeps the photos' latents; made if it is not there.  "
    "[default: in the run's folder]",
)
@click.option(
    "--pretrained-vae/--no-pretrained-vae",
    default=False,
    show_default=True,
    help="Train in the latent space of the VAE of --vae or --bk-sdm.",
)
@click.option(
    "--pretrained-unet/--no-pretrained-unet",
    default=False,
    show_default=True,
    help="Fit the codec to the U-Net of --bk-sdm.",
)
@click.option(
    "--adapter",
    type=click.Choice(["none", "lora"]),
    default="lora",
    show_default=True,
    help="What --phase denoiser adds to the frozen U-Net.",
)
@click.option(
    "--lora-rank",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Rank of that LoRA.",
)
@click.option(
    "--unroll-steps",
    type=click.IntRange(1, 8),
    default=1,
    show_default=True,
    help="Denoising steps that --phase denoiser trains through.",
)
@click.option(
    "--precision",
    type=click.Choice(["no", "bf16", "fp16"]),
    default="no",
    show_default=True,
    help="Precision of the networks in training; no means float32.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Device that trains.",
)
@click.option(
    "--compile", "compiled", is_flag=True, help="Compile the networks, which pays on GPUs."
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Seed of crops, noise and initial weights.",
)
@click.option(
    "--save-minutes",
    type=Number(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Time between validations with their checkpoints.",
)
@click.option(
    "--save-steps", type=click.IntRange(1), help="Steps between validations with their checkpoints."
)
@click.option(
    "--init-from",
    metavar="BUNDLE|RUN",
    help="Start from the networks of a bundle or of another run.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in the output folder, with its options; only its length, "
    "the times of its checkpoints, --compile and --device may be changed.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check everything and take three steps, but write nothing."
)
@click.option(
    "--export",
    "run",
    type=FOLDER,
    metavar="RUN",
    help="Write the bundle of a finished run instead of training.",
)
@click.option(
    "--prior",
    type=click.Choice(["context", "factorized"]),
    default="context",
    show_default=True,
    help="Prior of the exported bundle.",
)
@click.option("--name", default="custom", show_default=True, help="Name of the exported bundle.")
@click.option(
    "--data-note",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Text file about the photos' origin and licences, for the provenance record.",
)
@click.pass_context
def train(context: click.Context, /, **given: Any) -> None:
    """Train a bundle, or export one from a finished run (needs bkcodec[train])."""
    request = Request(**given)
    if request.resume and request.run is None:
        request = resumed(context, request)
    check(context, request)
    with talk() as clock, what_comes_next(request):
        carry_out(request, clock)
