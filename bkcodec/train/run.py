"""A run's folder: begun once, continued with the same options, described by its record."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from bkcodec.backbone import pick_device
from bkcodec.bundle import find_bundle, load_bundle
from bkcodec.config import LEVELS
from bkcodec.context import ContextPrior
from bkcodec.errors import InputError, UsageError
from bkcodec.files import write_whole
from bkcodec.models.blocks import interpolate_rows
from bkcodec.models.compression import ModelConfig
from bkcodec.train.checkpoint import BROKEN, RECORD, load_run
from bkcodec.train.context import thaw
from bkcodec.train.data import Folder, Photos
from bkcodec.train.loop import Init, Trainer
from bkcodec.train.options import TrainOptions
from bkcodec.train.validate import SIDE

log = logging.getLogger(__name__)

LENGTHS = {"epochs", "max_steps", "max_minutes", "save_minutes", "save_steps"}  # may change


def start(
    options: TrainOptions, config: ModelConfig, data: Sequence[Folder], val: Path, folder: Path,
    record: dict[str, Any], *, resume: bool, device: str, init: Init | None = None,
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
    accelerator = make_accelerator(device, options.precision)
    record = {"options": asdict(options), "model": config.as_dict(),
              "processes": accelerator.num_processes, **record}  # fmt: skip
    record = json.loads(json.dumps(record))
    if resume:
        try:
            before = json.loads(record_file.read_text("utf-8"))
            different = {k for k in ("data", "val", "processes") if before[k] != record[k]}
            for key in ("options", "model"):
                different |= {k for k, v in record[key].items() if before[key].get(k) != v}
        except BROKEN as error:
            raise InputError(f"{record_file}: damaged ({error})") from error
        if different - LENGTHS:
            names = ", ".join(sorted(different - LENGTHS))
            raise InputError(f"{folder}: the run had another {names}")
        record |= {k: before[k] for k in ("command", "init_from") if k in before}
    photos, val_photos = read_photos(options, data, val, accelerator)
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
        trainer = Trainer(options, config, photos, val_photos, folder, accelerator, init)
        trainer.run()
    finally:
        package_log.removeHandler(handler)
        handler.close()
    return trainer


def rehearse(
    options: TrainOptions, config: ModelConfig, data: Sequence[Folder], val: Path, folder: Path,
    *, device: str, init: Init | None = None,
) -> None:  # fmt: skip
    """Read the photos, build everything, take three steps, log the figures, write nothing."""
    accelerator = make_accelerator(device, options.precision)
    photos, val_photos = read_photos(options, data, val, accelerator)
    trainer = Trainer(options, config, photos, val_photos, folder, accelerator, init)
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


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Accelerate on a device: auto, cpu, cuda or mps; precision no, bf16 or fp16.

    Raises:
        UnsupportedError: a device that is not there.
        UsageError: fp16 without a GPU.
    """
    chosen = pick_device(device)
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU; bf16 works everywhere")
    return Accelerator(cpu=chosen.type == "cpu", mixed_precision=precision)


def read_photos(
    options: TrainOptions, data: Sequence[Folder], val: Path, accelerator: Accelerator
) -> tuple[Photos, Photos]:
    """Training and validation photos.

    Raises:
        InputError: a folder without usable photos.
    """
    photos = Photos(data, options.image_size).to(accelerator.device)
    return photos, Photos(val, SIDE)


def load_init(source: str) -> Init:
    """Where a run starts from: a run's folder, or a bundle by name or file.

    Raises:
        InputError, UnsupportedError: neither, or unusable.
    """
    folder = Path(source)
    try:
        if folder.is_dir():
            record, state = load_run(folder)
            if record["options"].get("phase") == "texture":
                raise InputError(f"{folder}: a texture run has no prior; start from its bundle")
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
