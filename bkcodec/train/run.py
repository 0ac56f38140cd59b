"""A run's folder: begun once, continued with the same options, described by its record."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from safetensors import SafetensorError

from bkcodec.errors import InputError, TrainingError, UsageError, first_line
from bkcodec.files import write_whole
from bkcodec.machine import n_cores, pick_device
from bkcodec.models.config import ModelConfig
from bkcodec.train.clock import Clock
from bkcodec.train.data import Crops, Folder, Photos
from bkcodec.train.latents import Latents
from bkcodec.train.options import TrainOptions
from bkcodec.train.record import RECORD, checked
from bkcodec.train.start import NO_PARTS, Init, Parts
from bkcodec.train.trainer import Trainer
from bkcodec.train.validate import SIDE

log = logging.getLogger(__name__)


def start(
    options: TrainOptions,
    config: ModelConfig,
    data: Sequence[Folder],
    val: Path,
    folder: Path,
    record: dict[str, Any],
    *,
    resume: bool,
    device: str,
    init: Init | None = None,
    parts: Parts = NO_PARTS,
    clock: Clock | None = None,
) -> Trainer:
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
    record = {
        "options": asdict(options),
        "model": config.as_dict(),
        "processes": accelerator.num_processes,
        **record,
    }
    record = json.loads(json.dumps(record))
    if resume:
        record |= checked(record_file, record)
    photos, val_photos = read_photos(options, data, val, accelerator, parts)
    package_log = logging.getLogger("bkcodec")
    package_log.setLevel(logging.INFO)
    handler: logging.Handler = logging.NullHandler()
    if accelerator.is_main_process:
        text = json.dumps(record, indent=2) + "\n"
        write_whole(record_file, text.encode(), force=True)
        handler = _LogFile(folder / "training.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    package_log.addHandler(handler)
    n_photos = len(photos), len(val_photos)
    log.info("%d photos, %d for validation, %d processes", *n_photos, accelerator.num_processes)
    try:
        with _one_line(folder):
            trainer = Trainer(
                options, config, photos, val_photos, folder, accelerator, init, parts, clock
            )
            trainer.run()
    finally:
        package_log.removeHandler(handler)
        handler.close()
    return trainer


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """What cannot be written ends a run with one line, whichever thread meets it."""
    threading.excepthook = _of_other_threads
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder}: cannot go on ({first_line(error)})") from error
    finally:
        threading.excepthook = threading.__excepthook__


class _LogFile(logging.FileHandler):
    """One that does not go on where it cannot write."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: D102, N802 (logging's name)
        raise  # noqa: PLE0704 (called while the error is handled)


def _of_other_threads(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands what it cannot write on to ours, which says so in a line."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def rehearse(
    options: TrainOptions,
    config: ModelConfig,
    data: Sequence[Folder],
    val: Path,
    folder: Path,
    *,
    device: str,
    init: Init | None = None,
    parts: Parts = NO_PARTS,
) -> None:
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
    log.info(
        "%d photos, %d for validation, %d files skipped",
        len(photos),
        len(val_photos),
        photos.n_skipped + val_photos.n_skipped,
    )
    log.info("device %s, %.1f million parameters", accelerator.device, parameters / 1e6)
    shape = (options.batch_size, options.image_size)
    began = time.monotonic()
    batches = [photos.batch((options.seed, step, 0), *shape) for step in range(3)]
    pace = 3 * options.batch_size / (time.monotonic() - began)
    log.info("data: %.0f crops per second, of %d pixels", pace, options.image_size)
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
        torch.set_num_threads(max(1, n_cores() // accelerator.num_processes))
    return accelerator


def read_photos(
    options: TrainOptions,
    data: Sequence[Folder],
    val: Path,
    accelerator: Accelerator,
    parts: Parts = NO_PARTS,
) -> tuple[Crops, Photos]:
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
