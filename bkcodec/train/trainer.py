"""The training loop: one process or many, on CPUs or GPUs, with the same code (Accelerate)."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from bkcodec.errors import TrainingError
from bkcodec.files import write_whole
from bkcodec.machine import out_of_memory
from bkcodec.models.blocks import adopt_exponents
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig
from bkcodec.train.checkpoint import (
    VALIDATION,
    load_checkpoint,
    newest_checkpoint,
    save_averaged,
    save_checkpoint,
)
from bkcodec.train.clock import Clock, in_words
from bkcodec.train.data import Crops, Photos
from bkcodec.train.objectives import make_objective
from bkcodec.train.objectives.prior import PriorObjective
from bkcodec.train.optimiser import adam, parameter_groups
from bkcodec.train.options import TrainOptions
from bkcodec.train.phases import PHASES
from bkcodec.train.prior.network import ContextNetwork
from bkcodec.train.start import NO_PARTS, Init, Parts, Start
from bkcodec.train.validate import Validation, write_samples

log = logging.getLogger(__name__)

REPORT_STEPS = 50
WARMUP_STEPS = 100
MAX_SKIPPED, MAX_SCALED = 10, 50  # steps in a row without a finite gradient; with a scaler


class Trainer:
    """One run in one folder; ``run`` starts it, or continues it where its checkpoint ends.

    What a step sees depends on (seed, step, process) alone, so a run that was killed and resumed
    is the run that was not (on a CPU, and with a length in steps or epochs: the learning rate of a
    run of so many minutes follows the clock).
    """

    def __init__(
        self,
        options: TrainOptions,
        config: ModelConfig,
        train: Crops,
        val: Photos,
        folder: Path,
        accelerator: Accelerator,
        init: Init | None = None,
        parts: Parts = NO_PARTS,
        clock: Clock | None = None,
    ) -> None:
        self.options, self.train, self.val, self.folder = options, train, val, folder
        self.accelerator, self.init = accelerator, init
        self.phase = PHASES[options.phase]
        torch.manual_seed(options.seed)
        teacher = parts.vae if options.phase == "vae" else None
        vae = None if teacher is not None else parts.vae
        self.model = BkSdmCompression(config, vae=vae, backbone=parts.backbone)
        self.model = self.model.to(memory_format=torch.channels_last)
        self.prior = ContextNetwork(options.context(config.M), config.anchors)
        self.networks = nn.ModuleDict({"model": self.model, "prior": self.prior})
        objective: Any = make_objective(self.model, self.prior, options, teacher)
        critic = getattr(objective, "critic", None)
        if critic is not None:
            self.networks["critic"] = critic
        self.networks.to(accelerator.device)
        self.ema = torch.optim.swa_utils.AveragedModel(self.networks)
        for averaged, own in zip(self.ema.parameters(), self.networks.parameters(), strict=True):
            if not own.requires_grad:
                averaged.data = own.data  # a pretrained part is there once
        self.objective = objective.to(accelerator.device)
        self.optimizer: Any = adam(parameter_groups(self.networks, options.lr))
        self.step, self.elapsed, self.best, self.n_skipped = 0, 0.0, math.inf, 0
        self.limits = options.limits(len(train), accelerator.num_processes)
        self.clock = clock or Clock()
        self.clock.limit, self.left = 60 * self.limits[1], math.inf

    def run(self) -> None:
        """Train until the limit of steps or minutes; checkpoints go to the run's folder."""
        checkpoint = newest_checkpoint(self.folder)
        if checkpoint is not None:
            self._go_on(checkpoint)
        else:
            self.begin()
        self.prepare()
        options, accelerator, clock = self.options, self.accelerator, self.clock
        writer = None
        if accelerator.is_main_process:
            writer = SummaryWriter(str(self.folder / "tensorboard"), max_queue=1000)
        batches = self.train.batches(
            options.seed,
            accelerator.process_index,
            self.step,
            options.batch_size,
            options.image_size,
        )
        if clock.first_step is None:
            if math.isfinite(clock.limit) and writer is not None:
                self.save(writer)  # which tells how long the last one will take
            clock.first_step = clock.elapsed
        self._tick()
        saved = self.elapsed
        while self.progress < 1 or self.step == 0:
            began = time.monotonic()
            x = next(batches)
            stats = self.advance(x)
            clock.stepped(time.monotonic() - began)
            self._tick()
            if self.step % REPORT_STEPS == 0 or clock.is_silent():
                self._report(stats | self._rounded_rate(x), writer)
            due = self.elapsed - saved > options.save_minutes * 60
            due = due or bool(options.save_steps and self.step % options.save_steps == 0)
            is_last = self.progress >= 1
            if (due or is_last) and writer is not None:
                self.save(writer)
            if due or is_last:
                self._tick()
                saved = self.elapsed
            if is_last:
                break
        if writer is not None:
            writer.close()

    @property
    def progress(self) -> float:
        """How much of the run is done, 0..1; its last validation has time of its own."""
        return max(self.step / self.limits[0], self.clock.progress(self.elapsed))

    def _go_on(self, checkpoint: Path) -> None:
        """Continue where a checkpoint ends."""
        state = load_checkpoint(checkpoint, self.networks, self.ema, self.optimizer)
        self.step = state["step"]
        # Runs from before costs counted mean colours compare with nothing.
        self.best = state.get("least", math.inf)
        self.clock.go_on(state)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        log.info("resumed at step %d, %.1f minutes", self.step, state["elapsed"] / 60)

    def begin(self, fit: bool = True) -> None:
        """Start from ``init``; see ``Start.begin``."""
        start = Start(self.networks, self.options, self.train, self._device, self.clock)
        start.begin(self.init, fit)
        state = self.networks.state_dict()
        adopt_exponents(self.ema.module, state)
        self.ema.module.load_state_dict(state)

    def prepare(self) -> None:
        """Hand over to Accelerate; all processes get the main one's weights."""
        if self.options.compiled:
            model = self.model
            for part in (*model.vae.children(), model.h_a, model.h_s, model.unet):
                part.compile()
        self.objective, self.optimizer = self.accelerator.prepare(self.objective, self.optimizer)

    def advance(self, x: Tensor) -> dict[str, float]:
        """One step of the optimiser on crops x [B, 3, H, W].

        Raises:
            TrainingError: the loss is not finite.
            LimitError: out of memory.
        """
        options = self.options
        warmup = min(1.0, (self.step + 1) / WARMUP_STEPS)
        rate = warmup * options.rate_at(self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        process = self.accelerator.process_index
        seed = (options.seed * 1_000_003 + self.step) * 1009 + process
        generator = torch.Generator().manual_seed(seed)
        with out_of_memory("Lower --batch-size or --image-size."):
            with self.accelerator.autocast():
                loss, stats = self.objective(x.to(self.accelerator.device), generator)
            if not torch.isfinite(loss):
                raise TrainingError(f"step {self.step}: the loss is not finite. Lower --lr.")
            self.optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.networks.parameters(), 1.0)
        if torch.isfinite(norm):
            self.n_skipped = 0
            self.optimizer.step()
            self._average()
        else:
            self._skip()
        self.step += 1
        return {k: v.item() for k, v in (stats | {"grad_norm": norm}).items()}

    def _average(self) -> None:
        """Move the averaged weights towards the trained ones; what is frozen is shared."""
        decay = min(self.options.ema_decay, (self.step + 1) / (self.step + 20))
        pairs = zip(self.ema.module.parameters(), self.networks.parameters(), strict=True)
        averaged, trained = zip(*((a, b) for a, b in pairs if b.requires_grad), strict=True)
        torch.optim.swa_utils.get_ema_multi_avg_fn(decay)(averaged, trained, 0)

    def _skip(self) -> None:
        """Leave out a step whose gradient is not finite; after many, raise TrainingError."""
        self.n_skipped += 1
        log.info("step %d: the gradient is not finite, no step taken", self.step)
        limit = MAX_SKIPPED
        if self.accelerator.scaler is not None:
            self.optimizer.step()  # leaves the weights alone and lowers the scale
            limit = MAX_SCALED
        if self.n_skipped >= limit:
            raise TrainingError(
                f"step {self.step}: {limit} gradients in a row are not finite. Lower --lr."
            )

    @torch.no_grad()
    def _rounded_rate(self, x: Tensor) -> dict[str, float]:
        """The rate of a batch's symbols: that of files, which noise overstates at low qualities."""
        if not self.phase.trains_all:
            return {}
        rate = PriorObjective(self.model, self.prior, self.options)
        _, stats = rate(x.to(self._device), torch.Generator().manual_seed(self.step))
        return {"bpp": stats["bpp"].item()}

    def save(self, writer: SummaryWriter) -> None:
        """Write checkpoint, validation figures and samples of the averaged weights."""
        began, judge = time.monotonic(), self.judge()
        self.clock.show("validation", min(1.0, self.progress), self.clock.ending or math.inf)
        rows = judge.rows(self.val)
        cost = judge.cost(rows)
        figures = {
            "step": self.step,
            "minutes": round(self.clock.elapsed / 60, 1),
            "cost": cost,
            "rows": [asdict(row) for row in rows],
        }
        if cost < self.best:
            self.best = cost
            save_averaged(self.folder, self.ema, figures)
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "least": self.best,
            "scaler": scaler.state_dict() if scaler is not None else None,
            **self.clock.state(),
        }
        save_checkpoint(self.folder, self.networks, self.ema, self.optimizer, state)
        text = json.dumps(figures, indent=2) + "\n"
        write_whole(self.folder / VALIDATION, text.encode(), force=True)
        for row in rows:
            log.info("step %d val %s", self.step, row)
            for name, value in asdict(row).items():
                if name not in ("position", "steps") and value is not None:
                    tag = f"val/{name}/q{row.position:.2f}/{row.steps}"
                    writer.add_scalar(tag, value, self.step)
        log.info("step %d val cost %.4f (best %.4f)", self.step, cost, self.best)
        path = self.folder / "samples" / f"{self.step:07d}.png"
        room = self.clock.limit - self.clock.elapsed if self.step else 0.0
        grid = write_samples(judge, self.val, path, room)
        writer.add_image("samples", grid, self.step, dataformats="HWC")
        writer.flush()
        self.clock.ending = max(self.clock.ending, time.monotonic() - began)
        self.clock.reported()

    def judge(self) -> Validation:
        """Validates the averaged weights."""
        averaged: Any = self.ema.module
        coder = None
        if self.phase.keeps_files and self.init is not None:
            coder = self.init.coder
        return Validation(averaged["model"], averaged["prior"], self.options, coder)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def _tick(self) -> None:
        """Read the clock, of which the main process's rules, and show how far the run is."""
        box = [self.clock.state()]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(box)
        self.elapsed = box[0]["elapsed"]
        self.clock.first_step, self.clock.ending = box[0]["first_step"], box[0]["ending"]
        self.left = self.clock.left(self.elapsed, self.limits[0] - self.step)
        self.clock.show("training", min(1.0, self.progress), self.left)

    def _report(self, stats: dict[str, float], writer: SummaryWriter | None) -> None:
        if writer is None:
            return
        self.clock.reported()
        text = " ".join(f"{k} {v:.4g}" for k, v in stats.items())
        log.info(
            "step %d %.1f min (%.2f s/step), %.0f %% done, %s left; %s",
            self.step,
            self.elapsed / 60,
            self.clock.pace,
            100 * min(1.0, self.progress),
            in_words(self.left),
            text,
        )
        for name, value in stats.items():
            writer.add_scalar(f"train/{name}", value, self.step)
