"""The training loop: rate + lambda * distortion over all qualities at once, and denoising."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from bkcodec.backbone import pick_device
from bkcodec.errors import InputError
from bkcodec.models.compression import BkSdmCompression, ModelConfig
from bkcodec.train.checkpoint import load_checkpoint, save_checkpoint
from bkcodec.train.data import Photos
from bkcodec.train.losses import RateDistortion
from bkcodec.train.context import ContextConfig, ContextNetwork, group_sizes
from bkcodec.train.validate import SIDE, validate

log = logging.getLogger(__name__)

RECORD, VALIDATION = "run.json", "validation.json"
PRIOR_STEPS = 400  # steps in which only the tables are fitted
REPORT_STEPS = 50
SLOW = ("vae.encoder.linear", "vae.decoder.linear", "h_a.linear", "h_s.linear")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a run does; everything that a resumed run must share with its beginning.

    Attributes:
        lambda_min, lambda_max: ends of the geometric range of rate-distortion trade-offs, in
            bits a pixel per squared 8-bit level.
        ms_ssim_weight: share of MS-SSIM in the distortion, 0..1.
    """

    batch_size: int = 8
    image_size: int = 192
    max_minutes: float | None = None
    max_steps: int | None = None
    lr: float = 6e-4
    lambda_min: float = 1e-4
    lambda_max: float = 0.06
    ms_ssim_weight: float = 0.4
    ema_decay: float = 0.999
    seed: int = 0
    save_minutes: float = 5.0


class Trainer:
    """One run in one folder; ``run`` starts it, or continues it where its checkpoint ends."""

    def __init__(
        self, options: TrainOptions, config: ModelConfig, train: Photos, val: Photos,
        folder: Path, device: torch.device, init: dict[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.init = init
        self.options, self.train, self.val, self.folder = options, train, val, folder
        self.device = device
        torch.manual_seed(options.seed)
        self.model = BkSdmCompression(config).to(memory_format=torch.channels_last).to(self.device)
        self.prior = ContextNetwork(_context(config), config.anchors).to(self.device)
        self.networks = nn.ModuleDict({"model": self.model, "prior": self.prior})
        self.ema = torch.optim.swa_utils.AveragedModel(
            self.networks, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(1.0),
            use_buffers=False,
        )  # fmt: skip
        self.objective = RateDistortion(self.model, self.prior, options)
        self.optimizer = torch.optim.AdamW(self._groups(), betas=(0.9, 0.98), weight_decay=0.0)
        self.step, self.elapsed = 0, 0.0

    def run(self) -> None:
        """Train until the limit of steps or minutes; checkpoints go to the run's folder."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint.safetensors").exists():
            self.step, self.elapsed = load_checkpoint(
                folder, self.networks, self.ema, self.optimizer
            )
            log.info("resumed at step %d, %.1f minutes", self.step, self.elapsed / 60)
        else:
            if self.init is not None:
                missing, odd = self.model.load_state_dict(self.init, strict=False)
                log.info("initialised; new: %d tensors, unused: %d", len(missing), len(odd))
            self._measure_spread()
            self._fit_prior()
        writer = SummaryWriter(str(folder / "tensorboard"))
        batches = self.train.batches(
            self.options.seed, self.step, self.options.batch_size, self.options.image_size
        )
        started, saved = time.monotonic() - self.elapsed, self.elapsed
        while self.progress < 1:
            stats = self._step(next(batches))
            self.elapsed = time.monotonic() - started
            if self.step % REPORT_STEPS == 0:
                self._report(writer, stats)
            if self.elapsed - saved > self.options.save_minutes * 60 or self.progress >= 1:
                self.save(writer)
                saved = self.elapsed
        writer.close()

    @property
    def progress(self) -> float:
        """How much of the run is done, 0..1."""
        steps = self.step / self.options.max_steps if self.options.max_steps else 0.0
        minutes = self.elapsed / 60 / self.options.max_minutes if self.options.max_minutes else 0.0
        return max(steps, minutes)

    def save(self, writer: SummaryWriter) -> None:
        """Write the checkpoint and the validation figures of the averaged weights."""
        save_checkpoint(
            self.folder, self.networks, self.ema, self.optimizer, self.step, self.elapsed
        )
        averaged: Any = self.ema.module
        rows = validate(averaged["model"], averaged["prior"], self.val, self.device)
        figures = json.dumps({"step": self.step, "minutes": round(self.elapsed / 60, 1),
                              "rows": [asdict(row) for row in rows]}, indent=2)  # fmt: skip
        (self.folder / VALIDATION).write_text(figures + "\n", "utf-8")
        for row in rows:
            log.info("step %d val %s", self.step, row)
            for name in ("bpp", "psnr", "ms_ssim"):
                writer.add_scalar(f"val/{name}/q{row.quality:.2f}", getattr(row, name), self.step)
        writer.flush()

    def _step(self, x: Tensor) -> dict[str, float]:
        options = self.options
        warmup = min(1.0, (self.step + 1) / 100)
        rate = warmup * (0.5 * (1 + math.cos(math.pi * min(1.0, self.progress))) + 0.01)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + self.step)
        loss, stats = self.objective(x.to(self.device), generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {self.step}: the loss is not finite; lower --lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        stats["grad_norm"] = nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0).item()
        self.optimizer.step()
        decay = min(options.ema_decay, (self.step + 1) / (self.step + 20))
        self.ema.multi_avg_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
        self.ema.update_parameters(self.networks)
        self.step += 1
        return stats

    def _groups(self) -> list[dict[str, object]]:
        """Adam's groups: the DCT matrices learn 20 times slower, the tables 8 times faster."""
        lr = self.options.lr
        rates = {"slow": lr / 20, "networks": lr, "tables": lr * 8,
                 "context": lr * 3, "first": lr * 8}  # fmt: skip
        groups: dict[str, list[Tensor]] = {name: [] for name in rates}
        for name, parameter in self.networks.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.removeprefix("model.").startswith(SLOW):
                groups["slow"].append(parameter)
            elif name.startswith("prior.first."):
                groups["first"].append(parameter)
            elif name.startswith("prior."):
                groups["context"].append(parameter)
            elif ".quantiser." in name:
                groups["tables"].append(parameter)
            else:
                groups["networks"].append(parameter)
        return [{"params": groups[k], "lr": rates[k], "base_lr": rates[k]} for k in groups]

    @torch.no_grad()
    def _measure_spread(self) -> None:
        x = torch.cat(
            [self.train.batch(self.options.seed, -1 % 2**31 - i, 8, 192) for i in range(8)]
        )
        y, z = self.model.analyse(x.to(self.device))
        if self.init is None:
            self.model.vae.y_std.copy_(y.std(dim=(0, 2, 3)))
        self.prior.measure(z)

    def _fit_prior(self) -> None:
        """Fit the density of the untrained transform alone; the joint start needs it."""
        optimizer = torch.optim.Adam(
            self._groups()[3:], betas=(0.9, 0.98)
        )
        for step in range(PRIOR_STEPS):
            x = self.train.batch(self.options.seed, 2**30 + step, self.options.batch_size, 128)
            with torch.no_grad():
                _, z = self.model.analyse(x.to(self.device))
                quality = torch.rand(len(z), device=self.device)
                size = self.model.quantiser.step(quality)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * (4 if step < PRIOR_STEPS // 2 else 1)
            noisy = z + (torch.rand_like(z) - 0.5) * size
            loss = self.prior.bits(noisy, torch.round(z / size), size, quality).mean() / x[0, 0].numel()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        log.info("prior fitted: %.3f bpp at random quality", loss.item())
        self.ema.module.load_state_dict(self.networks.state_dict())

    def _report(self, writer: SummaryWriter, stats: dict[str, float]) -> None:
        pace = self.elapsed / max(1, self.step)
        text = " ".join(f"{k} {v:.4g}" for k, v in stats.items())
        log.info("step %d %.1f min (%.2f s/step) %s", self.step, self.elapsed / 60, pace, text)
        for name, value in stats.items():
            writer.add_scalar(f"train/{name}", value, self.step)


def start(
    options: TrainOptions, config: ModelConfig, data: Path, val: Path, folder: Path,
    record: dict[str, Any], *, resume: bool, device: str, init: dict[str, Tensor] | None = None,
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
    if resume:
        before = json.loads(record_file.read_text("utf-8"))
        for key in ("options", "model"):
            different = {k for k, v in record[key].items() if before[key].get(k) != v}
            if different - {"max_minutes", "max_steps"}:
                raise InputError(f"{folder}: the run had another {', '.join(sorted(different))}")
        record = record | {"command": before["command"]}
    side = max(options.image_size, SIDE)
    photos, val_photos = Photos(data, options.image_size), Photos(val, side)
    folder.mkdir(parents=True, exist_ok=True)
    record_file.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    handler = logging.FileHandler(folder / "training.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    package_log = logging.getLogger("bkcodec")
    package_log.setLevel(logging.INFO)
    package_log.addHandler(handler)
    try:
        trainer = Trainer(options, config, photos, val_photos, folder, pick_device(device), init)
        trainer.run()
    finally:
        package_log.removeHandler(handler)
        handler.close()
    return trainer


def _context(config: ModelConfig) -> ContextConfig:
    return ContextConfig(groups=group_sizes(config.M))
