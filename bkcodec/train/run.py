"""A run's folder: begun once, continued with the same options, described by its record."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from bkcodec.backbone import pick_device
from bkcodec.bundle import find_bundle, load_bundle
from bkcodec.config import LEVELS
from bkcodec.context import ContextPrior
from bkcodec.errors import InputError, UsageError
from bkcodec.files import write_whole
from bkcodec.models.blocks import interpolate_rows
from bkcodec.models.compression import ModelConfig
from bkcodec.pretrained import load_unet, load_vae
from bkcodec.train.checkpoint import BROKEN, RECORD, load_run
from bkcodec.train.context import thaw
from bkcodec.train.data import Crops, Folder, Photos
from bkcodec.train.latent import Latents
from bkcodec.train.loop import NO_PARTS, Init, Parts, Trainer
from bkcodec.train.options import TrainOptions
from bkcodec.train.phases import KEEPS_FILES
from bkcodec.train.validate import SIDE

log = logging.getLogger(__name__)

# Options that may change when a run goes on. So may its processes; it then draws other crops.
CHANGEABLE = {"epochs", "max_steps", "max_minutes", "save_minutes", "save_steps", "compiled"}


def start(
    options: TrainOptions, config: ModelConfig, data: Sequence[Folder], val: Path, folder: Path,
    record: dict[str, Any], *, resume: bool, device: str, init: Init | None = None,
    parts: Parts = NO_PARTS,
) -> Trainer:  # fmt: skip
    """Begin or continue a run; ``record`` says what it is and is kept in its folder.

    Raises:
        InputError: a run in the way, none to resume, or one with other options.
    """
    record_file = folder / RECORD
    if record_file.exists() != resume:
        problem = (
            "no run to resume here" if resume else "holds a run already; --resume continues it"
        )
        raise InputError(f"{folder}: {problem}")
    accelerator = make_accelerator(device, options.precision, options.phase)
    record = {"options": asdict(options), "model": config.as_dict(),
              "processes": accelerator.num_processes, **record}  # fmt: skip
    record = json.loads(json.dumps(record))
    if resume:
        try:
            before = json.loads(record_file.read_text("utf-8"))
            different = {k for k in ("data", "val") if before[k] != record[k]}
            for key in ("options", "model"):
                different |= {k for k, v in record[key].items() if before[key].get(k) != v}
        except BROKEN as error:
            raise InputError(f"{record_file}: damaged ({error})") from error
        if different - CHANGEABLE:
            names = ", ".join(sorted(different - CHANGEABLE))
            raise InputError(f"{folder}: the run had another {names}")
        record |= {k: before[k] for k in ("command", "init_from") if k in before}
    photos, val_photos = read_photos(options, data, val, accelerator, parts)
    package_log = logging.getLogger("bkcodec")
    package_log.setLevel(logging.INFO)
    handler: logging.Handler = logging.NullHandler()
    if accelerator.is_main_process:
        text = json.dumps(record, indent=2) + "\n"
        write_whole(record_file, text.encode(), force=True)
        handler = logging.FileHandler(folder / "training.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    package_log.addHandler(handler)
    log.info("%d photos, %d for validation, %d processes", len(photos), len(val_photos),
             accelerator.num_processes)  # fmt: skip
    try:
        trainer = Trainer(options, config, photos, val_photos, folder, accelerator, init,
                          parts)  # fmt: skip
        trainer.run()
    finally:
        package_log.removeHandler(handler)
        handler.close()
    return trainer


def rehearse(
    options: TrainOptions, config: ModelConfig, data: Sequence[Folder], val: Path, folder: Path,
    *, device: str, init: Init | None = None, parts: Parts = NO_PARTS,
) -> None:  # fmt: skip
    """Read the photos, build everything, take three steps, log the figures, write nothing."""
    accelerator = make_accelerator(device, options.precision, options.phase)
    if options.latents is not None and not Path(options.latents).exists():
        log.info("no latents yet: a rehearsal starts after they were made")
        options = replace(options, latents=None)
    photos, val_photos = read_photos(options, data, val, accelerator, parts)
    trainer = Trainer(options, config, photos, val_photos, folder, accelerator, init, parts)
    trainer.begin(fit=False)
    trainer.prepare()
    parameters = sum(p.numel() for p in trainer.model.parameters())
    log.info("%d photos, %d for validation, %d files skipped", len(photos), len(val_photos),
             photos.n_skipped + val_photos.n_skipped)  # fmt: skip
    log.info("device %s, %.1f million parameters", accelerator.device, parameters / 1e6)
    shape = (options.batch_size, options.image_size)
    began = time.monotonic()
    batches = [photos.batch((options.seed, step, 0), *shape) for step in range(3)]
    pace = 3 * options.batch_size / (time.monotonic() - began)
    log.info("data: %.0f crops of %d pixels a second", pace, options.image_size)
    for x in batches:
        began = time.monotonic()
        stats = trainer.advance(x)
        log.info("step: %.2f s, loss %.4g", time.monotonic() - began, stats["loss"])
    val_photos.images = val_photos.images[:1]
    for row in trainer.judge().rows(val_photos):
        log.info("validation of one photo: %s", row)
    steps, minutes = trainer.limits
    log.info("the run would end after %g steps or %g minutes", steps, minutes)


def make_accelerator(device: str, precision: str, phase: str = "joint") -> Accelerator:
    """Accelerate on a device: auto, cpu, cuda or mps; precision no, bf16 or fp16.

    Steps of the texture phase do not all use the same parameters; several processes must know.

    Raises:
        UnsupportedError: a device that is not there.
        UsageError: fp16 without a GPU.
    """
    chosen = pick_device(device)
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU; bf16 works everywhere")
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=phase == "texture")]
    accelerator = Accelerator(
        cpu=chosen.type == "cpu", mixed_precision=precision, kwargs_handlers=handlers
    )
    if accelerator.num_processes > 1 and chosen.type == "cpu":
        # Threads of one process gain little, and those of several get in each other's way.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // accelerator.num_processes))
    return accelerator


def read_photos(
    options: TrainOptions, data: Sequence[Folder], val: Path, accelerator: Accelerator,
    parts: Parts = NO_PARTS,
) -> tuple[Crops, Photos]:  # fmt: skip
    """Training photos, or their latents where a run works on these, and validation photos.

    Raises:
        InputError: a folder without usable photos.
    """
    photos = Photos(data, options.image_size, options.rendered)
    val_photos = Photos(val, SIDE)
    if options.latents is None or parts.vae is None:
        return photos.to(accelerator.device), val_photos
    vae = parts.vae.to(accelerator.device)
    with accelerator.main_process_first():
        path, half = Path(options.latents), options.precision == "bf16"
        return Latents(photos, vae, path, options.image_size, half), val_photos


def load_parts(
    config: ModelConfig, bk_sdm: Path | None, vae: Path | None, with_unet: bool
) -> Parts:
    """The pretrained parts for a run.

    Raises:
        UsageError: networks of the other latent space.
        UnsupportedError: a part that is missing or does not fit.
    """
    source = vae or bk_sdm
    if config.space == "own":
        if source is not None:
            raise UsageError("these networks have a VAE of their own; --vae does not apply")
        return Parts()
    if source is None:
        raise UsageError("these networks need a pretrained VAE: --vae or --bk-sdm")
    unet = load_unet(bk_sdm) if with_unet and bk_sdm is not None else None
    return Parts(load_vae(source).float(), unet.float() if unet is not None else None)


def check_start(init: Init, phase: str) -> None:
    """Refuse phases that would lose what a bundle has.

    Raises:
        UsageError: it has a LoRA, or a custom VAE for pretrained latents, which come last.
    """
    path = init.record["path"]
    if any(k.startswith("lora.") for k in init.model):
        raise UsageError(f"{path}: fitted to a U-Net already; start from the bundle before that")
    if init.config.space == "sd" and any(k.startswith("vae.") for k in init.model):
        raise UsageError(f"{path}: has a VAE of its own, which --phase {phase} would replace")


def load_init(source: str) -> Init:
    """Where a run starts from: a run's folder, or a bundle by name or file.

    Raises:
        InputError, UnsupportedError: neither, or unusable.
    """
    folder = Path(source)
    try:
        if folder.is_dir():
            record, state = load_run(folder)
            phase = record["options"].get("phase")
            if phase in KEEPS_FILES:
                raise InputError(f"{folder}: a {phase} run has no prior; start from its bundle")
            known: dict[str, Any] = {"path": source, "provenance": record}
            config = ModelConfig(**record["model"])
            return Init(config, state["model"], state["prior"], None, known)
        bundle = load_bundle(find_bundle(source))
        networks = {k: torch.from_numpy(v).float() for k, v in bundle.networks.items()}
        known = {"path": source, "fingerprint": bundle.fingerprint.hex(),
                 "provenance": bundle.header.get("provenance")}  # fmt: skip
        config = ModelConfig(**bundle.header["model"])
        prior = None
        if isinstance(bundle.prior, ContextPrior):
            steps = interpolate_rows(networks["quantiser.log_step"], torch.linspace(0, 1, LEVELS))
            prior = thaw(bundle.prior, steps.exp(), config.anchors)
        return Init(config, networks, prior, bundle.prior, known)
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: networks of another version ({error})") from error
