"""The options of ``bkcodec train`` as one object: which go together, and what they become."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bkcodec.errors import UsageError
from bkcodec.train.phases import PHASES

if TYPE_CHECKING:
    from bkcodec.models.config import ModelConfig
    from bkcodec.train.options import TrainOptions
    from bkcodec.train.prior.network import ContextConfig

LAMBDA = {"own": (1.5e-4, 0.1), "sd": (0.035, 2.0)}  # trade-offs at quality 0 and 100
SIZES = ("N", "M", "schedule")  # of the networks; --init-from settles them
GROWING = ("encoder_depths", "decoder_depths", "inner")  # what is new does nothing at first
EXPORT_ONLY = {"run", "prior", "name", "data_note"}
PICTURES_ONLY = ("ms_ssim_weight", "lpips", "lpips_weight")
DENOISER_ONLY = ("adapter", "lora_rank", "unroll_steps")
BOTH_MODES = {"data", "output", "config", "bk_sdm", "vae"}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for; the fields are the options of ``bkcodec train``."""

    data: tuple[tuple[Path, float], ...]
    val: Path | None
    output: Path
    phase: str
    rendered: float
    epochs: int | None
    max_steps: int | None
    max_minutes: float | None
    batch_size: int
    image_size: int
    lr: float
    decay: float
    lambda_: tuple[float, float] | None
    ms_ssim_weight: float
    lpips: str | None
    lpips_weight: float
    adversarial_weight: float
    N: int | None
    M: int | None
    encoder_depths: tuple[int, int] | None
    decoder_depths: tuple[int, int] | None
    inner: float | None
    hidden: int | None
    context_phases: str | None
    sample_steps: int
    schedule: str
    bk_sdm: Path | None
    vae: Path | None
    latents: Path | None
    pretrained_vae: bool
    pretrained_unet: bool
    adapter: str
    lora_rank: int
    unroll_steps: int
    precision: str
    device: str
    compiled: bool
    seed: int
    save_minutes: float
    save_steps: int | None
    init_from: str | None
    resume: bool
    dry_run: bool
    run: Path | None
    prior: str
    name: str
    data_note: Path | None

    @property
    def has_length(self) -> bool:
        """Whether it was said how long the run is."""
        return bool(self.epochs or self.max_steps or self.max_minutes)


def check(context: click.Context, request: Request) -> None:
    """Refuse options that are missing or contradict each other (UsageError)."""

    def is_given(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    if not request.data:
        raise UsageError("--data is needed")
    exporting = request.run is not None
    for parameter in context.command.params:
        name = str(parameter.name)
        if is_given(name) and name not in BOTH_MODES and (name in EXPORT_ONLY) != exporting:
            what = "--export" if exporting else "training"
            raise UsageError(f"{parameter.opts[-1]} does not apply to {what}")
    if exporting:
        return
    if request.val is None:
        raise UsageError("--val is needed")
    phase = PHASES[request.phase]
    if phase.name != "joint" and request.init_from is None:
        raise UsageError(f"--phase {phase.name} needs --init-from")
    if request.init_from is not None and any(is_given(name) for name in SIZES):
        raise UsageError("--init-from settles --N, --M and --schedule")
    if not phase.trains_all and any(is_given(name) for name in GROWING):
        raise UsageError(
            "--encoder-depths, --decoder-depths and --inner apply to the phases joint and quantise"
        )
    if phase.name == "texture" and (request.lpips is None or not request.lpips_weight):
        raise UsageError("--phase texture needs --lpips and --lpips-weight")
    if phase.keeps_files and Path(str(request.init_from)).is_dir():
        raise UsageError(f"--phase {phase.name} starts from a bundle, whose files it keeps")
    if phase.name == "vae" and not request.pretrained_vae:
        raise UsageError("--phase vae needs --pretrained-vae to learn from")
    if request.latents is not None and (not request.pretrained_vae or not phase.on_latents):
        raise UsageError("--latents goes with --pretrained-vae, in the phases that work on latents")
    if request.pretrained_vae and phase.on_latents and any(map(is_given, PICTURES_ONLY)):
        raise UsageError("--ms-ssim-weight and --lpips do not apply to training on latents")
    if request.pretrained_unet != phase.takes_unet:
        raise UsageError("--pretrained-unet goes with --phase denoiser")
    if not phase.takes_unet and any(map(is_given, DENOISER_ONLY)):
        raise UsageError("--adapter, --lora-rank and --unroll-steps need --phase denoiser")
    if request.dry_run and request.resume:
        raise UsageError("--dry-run and --resume exclude each other")
    if request.adversarial_weight and phase.name != "texture":
        raise UsageError("--adversarial-weight applies to --phase texture only")
    if request.lpips_weight and request.lpips is None:
        raise UsageError("--lpips-weight needs --lpips")
    if request.pretrained_vae != (request.bk_sdm is not None or request.vae is not None):
        raise UsageError("--pretrained-vae goes with --bk-sdm or --vae")
    if request.pretrained_unet and request.bk_sdm is None:
        raise UsageError("--pretrained-unet needs --bk-sdm")


def fresh_sizes(request: Request) -> ModelConfig:
    """Sizes of fresh networks."""
    from bkcodec.models.config import ModelConfig, sd_config

    sizes = {name: getattr(request, name) for name in SIZES if getattr(request, name) is not None}
    if request.pretrained_vae or request.pretrained_unet:
        return sd_config(**sizes)
    return ModelConfig(**({"N": 128, "M": 128} | sizes))


def grown_sizes(config: ModelConfig, request: Request, has_start: bool) -> ModelConfig:
    """The sizes with what the options say of them; those of a start may only grow."""
    sizes = {name: getattr(request, name) for name in GROWING if getattr(request, name) is not None}
    for name, size in sizes.items():
        before = getattr(config, name)
        pairs = zip(size, before, strict=True) if isinstance(size, tuple) else [(size, before)]
        if has_start and any(new < old for new, old in pairs):
            raise UsageError(f"--{name.replace('_', '-')}: smaller than that of --init-from")
    return replace(config, **sizes)


def train_options(
    request: Request, config: ModelConfig, context: ContextConfig | None
) -> TrainOptions:
    """What the run is asked to do, around networks of these sizes.

    ``context``: the shape of the prior that it starts from. It stays where the options do not say
    otherwise: weights of another shape would have to be learned anew.
    """
    from bkcodec.train.options import TrainOptions
    from bkcodec.train.prior.network import ContextConfig, group_sizes

    before = context or ContextConfig()
    in_sd = config.space == "sd"
    low, high = request.lambda_ or LAMBDA[config.space]
    latents = None
    if in_sd and PHASES[request.phase].on_latents:
        latents = str(request.latents or request.output / "latents.safetensors")
    names = {f.name for f in fields(TrainOptions)} & {f.name for f in fields(Request)}
    shared: dict[str, Any] = {name: getattr(request, name) for name in names}
    shared["epochs"] = request.epochs if request.has_length else 100
    shared["context_phases"] = int(request.context_phases or before.phases[0])
    shared["hidden"] = request.hidden or before.hidden
    if context is not None and context.groups != group_sizes(config.M):
        shared["groups"] = context.groups
    shared["latents"] = latents
    return TrainOptions(lambda_min=low, lambda_max=high, **shared)
