"""Where a run starts: from nothing, a bundle or another run, around pretrained parts or not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bkcodec.bundle import find_bundle, load_bundle
from bkcodec.errors import InputError, UsageError
from bkcodec.models.blocks import interpolate_rows
from bkcodec.models.config import ModelConfig
from bkcodec.models.sd.folder import load_unet, load_vae
from bkcodec.models.sd.parts import SdUNet, SdVae
from bkcodec.models.space import SPACES
from bkcodec.options import LEVELS
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.tables import Tables
from bkcodec.train.checkpoint import load_run
from bkcodec.train.clock import Clock, in_words
from bkcodec.train.data import Crops
from bkcodec.train.grids import measure_grids
from bkcodec.train.grow import take_over
from bkcodec.train.objectives.prior import PriorObjective
from bkcodec.train.objectives.shared import latents
from bkcodec.train.optimiser import adam, parameter_groups
from bkcodec.train.options import TrainOptions
from bkcodec.train.phases import PHASES
from bkcodec.train.prior.network import ContextConfig, shape_of, spread_phases
from bkcodec.train.prior.thaw import thaw

log = logging.getLogger(__name__)

PRIOR_STEPS = 400  # steps at the start in which only the prior is fitted
FITTING_SHARE = 1 / 3  # of the time of a run, which this may take at most
MEASURED_BATCHES = 8  # of 8 crops, from which the spread of y and z is measured


@dataclass(frozen=True, slots=True)
class Init:
    """Where a run starts from.

    Attributes:
        config: sizes of the networks.
        model: their weights.
        prior: weights of the context prior; of a bundle, without the density of the first phase.
        coder: the integer prior; only a bundle has one.
        record: what to note down.
    """

    config: ModelConfig
    model: dict[str, Tensor]
    prior: dict[str, Tensor] | None
    coder: Tables | ContextPrior | None
    record: dict[str, Any]

    @property
    def context(self) -> ContextConfig | None:
        """The shape of its context prior; None without one."""
        return shape_of(self.prior) if self.prior is not None else None


@dataclass(frozen=True, slots=True)
class Parts:
    """Pretrained parts that a run trains around, or with a LoRA on them."""

    vae: SdVae | None = None
    backbone: SdUNet | None = None


NO_PARTS = Parts()


def load_parts(
    config: ModelConfig, bk_sdm: Path | None, vae: Path | None, with_unet: bool
) -> Parts:
    """The pretrained parts for a run.

    Raises:
        UsageError: networks of the other latent space.
        UnsupportedError: a part that is missing or does not fit.
    """
    source = vae or bk_sdm
    if not SPACES[config.space].takes_backbone:
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
    if SPACES[init.config.space].takes_backbone and any(k.startswith("vae.") for k in init.model):
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
            phase = record["options"].get("phase", "joint")
            if PHASES[phase].keeps_files:
                raise InputError(f"{folder}: a {phase} run has no prior; start from its bundle")
            origin: dict[str, Any] = {"path": source, "provenance": record}
            config = ModelConfig(**record["model"])
            return Init(config, state["model"], state["prior"], None, origin)
        bundle = load_bundle(find_bundle(source))
        networks = {k: torch.from_numpy(v).float() for k, v in bundle.state().items()}
        origin = {
            "path": source,
            "fingerprint": bundle.fingerprint.hex(),
            "provenance": bundle.header.get("provenance"),
        }
        config = ModelConfig(**bundle.header["model"])
        prior = None
        if isinstance(bundle.prior, ContextPrior):
            steps = interpolate_rows(networks["quantiser.log_step"], torch.linspace(0, 1, LEVELS))
            prior = thaw(bundle.prior, steps.exp(), config.anchors)
        return Init(config, networks, prior, bundle.prior, origin)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{source}: networks of another version ({error})") from error


class Start:
    """The beginning of a run: everything before its first step.

    Args:
        networks: {"model": ..., "prior": ...}; changed in place.
        options: of the run.
        train: its crops.
        device: where the networks are.
        clock: of the run.
    """

    def __init__(
        self,
        networks: nn.ModuleDict,
        options: TrainOptions,
        train: Crops,
        device: torch.device,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.networks, self.options, self.train, self.device = networks, options, train, device
        self.model: Any = networks["model"]
        self.prior: Any = networks["prior"]

    def begin(self, init: Init | None, fit: bool) -> None:
        """Take weights over, find grids of integers, measure y and z, fit what is new of the prior.

        ``fit``: whether the prior is fitted; a rehearsal does without.
        """
        phase = PHASES[self.options.phase]
        if init is not None:
            take_over(self.model, init.model, keeps_grids=not phase.trains_all)
        if phase.name == "quantise":
            generator = torch.Generator().manual_seed(self.options.seed)
            measure_grids(self.model, self.crops(), generator)
        if phase.keeps_files:
            return
        self._measure(is_new=init is None)
        fresh = self._load_prior(init)
        if fresh and fit:
            self._fit_prior(fresh)

    def crops(self) -> Iterator[Tensor]:
        """A few batches from which things are measured before the first step."""
        seed, side = self.options.seed, self.options.image_size
        for i in range(MEASURED_BATCHES):
            yield self.train.batch((seed, i, 0, 1), 8, side).to(self.device)

    @torch.no_grad()
    def _measure(self, is_new: bool) -> None:
        """Spread of y, and of z with its coding order, over a few crops."""
        y = torch.cat([latents(self.model, x) for x in self.crops()])
        if is_new and self.model.has_own_vae and not self.model.space.takes_backbone:
            self.model.vae.y_std.copy_(y.std(dim=(0, 2, 3)))
        self.prior.measure(self.model.h_a(y))

    def _fit_prior(self, fresh: set[nn.Parameter]) -> None:
        """Fit new parts of the prior to the transforms as they are; the joint start needs it.

        In a run of so many minutes it takes a part of them at most.
        """
        objective = PriorObjective(self.model, self.prior, self.options)
        groups = parameter_groups(self.networks, self.options.lr)
        optimizer = adam([group for group in groups if group["params"][0] in fresh])
        settled = [p for p in self.prior.parameters() if p.requires_grad and p not in fresh]
        for parameter in settled:
            parameter.requires_grad_(False)
        clock = self.clock
        began, room = clock.elapsed, FITTING_SHARE * (clock.limit - clock.elapsed)
        step, done = 0, 0.0
        while done < 1:
            x = self.train.batch((self.options.seed, step, 0, 2), 8, 128).to(self.device)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * (4 if done < 0.5 else 1)
            loss, stats = objective(x, torch.Generator().manual_seed(step))
            self.networks.zero_grad()
            loss.backward()
            optimizer.step()
            step, taken = step + 1, clock.elapsed - began
            done = max(step / PRIOR_STEPS, taken / room if room > 0 else 1.0)
            clock.show("fitting the prior", min(1.0, done), taken / done - taken)
            if clock.is_silent():
                clock.reported()
                log.info(
                    "fitting the prior: %.0f %% done, %s left",
                    100 * min(1.0, done),
                    in_words(taken / done - taken),
                )
        for parameter in settled:
            parameter.requires_grad_(True)
        bpp = stats["bpp"].item()
        log.info("prior fitted in %d steps: %.3f bpp at random positions", step, bpp)

    def _load_prior(self, init: Init | None) -> set[nn.Parameter]:
        """Take over a prior of the same shape but for its phases; returns what starts afresh."""
        every = set(self.prior.parameters())
        if init is None or init.prior is None:
            return every
        own, first = self.prior.state_dict(), "first."
        state = spread_phases(init.prior, self.prior.config)
        for key in own:
            if key.startswith(first) and key not in state:
                state[key] = own[key]  # a bundle has tables in its place
        if not all(k in state and state[k].shape == v.shape for k, v in own.items()):
            log.info("the prior has another shape and starts afresh")
            return every
        self.prior.load_state_dict({k: state[k] for k in own})
        if any(key.startswith(first) for key in init.prior):
            return set()
        self.prior.first.z_std.copy_(self.prior.spread[: len(self.prior.first.z_std)])
        return set(self.prior.first.parameters())
