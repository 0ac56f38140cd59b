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
from bkcodec.errors import InputError
from bkcodec.models.compression import ModelConfig
from bkcodec.train.checkpoint import load_averaged
from bkcodec.train.data import Folder, Photos
from bkcodec.train.export import BEST, RECORD
from bkcodec.train.loop import State, Trainer
from bkcodec.train.options import TrainOptions
from bkcodec.train.validate import SIDE

log = logging.getLogger(__name__)

LENGTHS = {"epochs", "max_steps", "max_minutes", "save_minutes", "save_steps"}  # may change


def start(
    options: TrainOptions, config: ModelConfig, data: Sequence[Folder], val: Path, folder: Path,
    record: dict[str, Any], *, resume: bool, device: str, init: State | None = None,
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
    record = {"options": asdict(options), "model": config.as_dict(), **record}
    if resume:
        before = json.loads(record_file.read_text("utf-8"))
        now = json.loads(json.dumps(record))
        for key in ("options", "model"):
            different = {k for k, v in now[key].items() if before[key].get(k) != v} - LENGTHS
            if different:
                raise InputError(f"{folder}: the run had another {', '.join(sorted(different))}")
        record = now | {k: before[k] for k in ("command", "init_from") if k in before}
    accelerator = make_accelerator(device, options.precision)
    photos, val_photos = read_photos(options, data, val, accelerator)
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        record_file.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    handler = logging.FileHandler(folder / "training.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    package_log = logging.getLogger("bkcodec")
    package_log.setLevel(logging.INFO)
    package_log.addHandler(handler)
    try:
        trainer = Trainer(options, config, photos, val_photos, folder, accelerator, init)
        trainer.run()
    finally:
        package_log.removeHandler(handler)
        handler.close()
    return trainer


def rehearse(
    options: TrainOptions, config: ModelConfig, data: Sequence[Folder], val: Path, folder: Path,
    *, device: str, init: State | None = None,
) -> None:  # fmt: skip
    """Read the photos, build everything, take three steps, log the figures, write nothing."""
    accelerator = make_accelerator(device, options.precision)
    photos, val_photos = read_photos(options, data, val, accelerator)
    trainer = Trainer(options, config, photos, val_photos, folder, accelerator, init)
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
    steps, minutes = trainer.limits
    log.info("the run would end after %g steps or %g minutes", steps, minutes)


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Accelerate on a device: auto, cpu, cuda or mps; precision no, bf16 or fp16.

    Raises:
        UnsupportedError: a device that is not there.
    """
    chosen = pick_device(device)
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


def load_init(source: str) -> tuple[ModelConfig, State, dict[str, Any]]:
    """Where a run starts from: a run's folder, or a bundle by name or file.

    Returns:
        Sizes of the networks, their weights (with the prior's, from a run), and what to record.

    Raises:
        InputError, UnsupportedError: neither, or unusable.
    """
    folder = Path(source)
    if folder.is_dir():
        try:
            record = json.loads((folder / RECORD).read_text("utf-8"))
            state: State = load_averaged(folder / BEST)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: not a folder of a run ({error})") from error
        return ModelConfig(**record["model"]), state, {"path": source, "provenance": record}
    bundle = load_bundle(find_bundle(source))
    networks = {k: torch.from_numpy(v).float() for k, v in bundle.networks.items()}
    known = {"path": source, "fingerprint": bundle.fingerprint.hex(),
             "provenance": bundle.header["provenance"]}  # fmt: skip
    return ModelConfig(**bundle.header["model"]), {"model": networks}, known
