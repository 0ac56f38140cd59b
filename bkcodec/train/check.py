"""Which options of ``bkcodec train`` go together; nothing here needs PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bkcodec.errors import UsageError
from bkcodec.train.phases import JOINT, KEEPS_FILES

SIZES = ("N", "M", "schedule")  # of the networks; --init-from settles them
GROWING = ("encoder_depths", "decoder_depths", "inner")  # what is new does nothing at first
EXPORT_ONLY = {"run", "prior", "name", "data_note"}
PICTURES_ONLY = ("ms_ssim_weight", "lpips", "lpips_weight")
DENOISER_ONLY = ("adapter", "lora_rank", "unroll_steps")
BOTH_MODES = {"data", "output", "config", "bk_sdm", "vae"}


def check(context: click.Context, given: dict[str, Any]) -> None:
    """Refuse options that are missing or contradict each other (UsageError)."""

    def is_given(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    if not given["data"]:
        raise UsageError("--data is needed")
    exporting = given["run"] is not None
    for parameter in context.command.params:
        name = str(parameter.name)
        if is_given(name) and name not in BOTH_MODES and (name in EXPORT_ONLY) != exporting:
            what = "--export" if exporting else "training"
            raise UsageError(f"{parameter.opts[-1]} does not apply to {what}")
    if exporting:
        return
    if given["val"] is None:
        raise UsageError("--val is needed")
    if not any(given[k] for k in ("epochs", "max_steps", "max_minutes")):
        given["epochs"] = 100
    if given["phase"] != "joint" and given["init_from"] is None:
        raise UsageError(f"--phase {given['phase']} needs --init-from")
    if given["init_from"] is not None and any(is_given(name) for name in SIZES):
        raise UsageError("--init-from settles --N, --M and --schedule")
    if given["phase"] not in JOINT and any(is_given(name) for name in GROWING):
        raise UsageError(
            "--encoder-depths, --decoder-depths and --inner apply to the phases joint and quantise"
        )
    if given["phase"] == "texture" and (given["lpips"] is None or not given["lpips_weight"]):
        raise UsageError("--phase texture needs --lpips and --lpips-weight")
    if given["phase"] in KEEPS_FILES and Path(given["init_from"]).is_dir():
        raise UsageError(f"--phase {given['phase']} starts from a bundle, whose files it keeps")
    if given["phase"] == "vae" and not given["pretrained_vae"]:
        raise UsageError("--phase vae needs --pretrained-vae to learn from")
    if given["latents"] is not None and (
        not given["pretrained_vae"] or given["phase"] in ("texture", "vae")
    ):
        raise UsageError("--latents goes with --pretrained-vae, in the phases that work on latents")
    on_latents = given["pretrained_vae"] and given["phase"] in ("joint", "prior", "denoiser")
    if on_latents and any(map(is_given, PICTURES_ONLY)):
        raise UsageError("--ms-ssim-weight and --lpips do not apply to training on latents")
    if given["pretrained_unet"] != (given["phase"] == "denoiser"):
        raise UsageError("--pretrained-unet goes with --phase denoiser")
    if given["phase"] != "denoiser" and any(map(is_given, DENOISER_ONLY)):
        raise UsageError("--adapter, --lora-rank and --unroll-steps need --phase denoiser")
    if given["dry_run"] and given["resume"]:
        raise UsageError("--dry-run and --resume exclude each other")
    if given["adversarial_weight"] and given["phase"] != "texture":
        raise UsageError("--adversarial-weight applies to --phase texture only")
    if given["lpips_weight"] and given["lpips"] is None:
        raise UsageError("--lpips-weight needs --lpips")
    if given["pretrained_vae"] != (given["bk_sdm"] is not None or given["vae"] is not None):
        raise UsageError("--pretrained-vae goes with --bk-sdm or --vae")
    if given["pretrained_unet"] and given["bk_sdm"] is None:
        raise UsageError("--pretrained-unet needs --bk-sdm")
