"""From a finished run to a bundle: float16 networks, an integer prior, counted tables."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bkcodec.bundle import (
    Bundle,
    find_bundle,
    load_bundle,
    save_bundle,
    shipped_bundles,
    weights_folder,
)
from bkcodec.coding.assembly import ADAPTED
from bkcodec.engine.floats import float_state
from bkcodec.engine.networks import Arrays
from bkcodec.errors import InputError, UsageError
from bkcodec.files import write_whole
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig
from bkcodec.models.denoising import CORRELATION_UNIT
from bkcodec.options import LEVELS, MAX_LEVEL, level_to_position
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.tables import Tables
from bkcodec.train.checkpoint import load_run
from bkcodec.train.data import Folder, Photos
from bkcodec.train.integers import has_grids, integer_arrays
from bkcodec.train.latents import Latents
from bkcodec.train.objectives.denoiser import lora_arrays
from bkcodec.train.options import TrainOptions
from bkcodec.train.phases import PHASES
from bkcodec.train.prior.count import count_tables
from bkcodec.train.prior.network import ContextNetwork
from bkcodec.train.start import NO_PARTS, Parts, load_parts

log = logging.getLogger(__name__)

ENCODER = ("vae.encoder.", "h_a.")
COUNTED_PHOTOS = 256  # at most; evenly spread over the folder
# Folders of a path that is a value, a word of a command or what follows an option's "=".
_OUTSIDE = re.compile(r"(?:(?<=[ =])|^)(?:\.\.)?/(?:[^/ ]*/)*(?=[^/ ])")
CALIBRATED_LEVELS, CALIBRATED_EVERY = 9, 4


def export_run(
    run: Path,
    data: Sequence[Folder],
    path: Path,
    name: str,
    note: str | None = None,
    prior: str = "context",
    parts: Parts = NO_PARTS,
) -> Bundle:
    """Write the bundle of a run's best averaged weights, with its provenance record beside it.

    Tables count the symbols that the encoder would send, over training photos; they need neither
    quantiles nor an auxiliary loss. A run of a phase that keeps files changes decoder networks
    only: its bundle codes symbols as the one that it started from, with the same fingerprint.

    Args:
        run: the run's folder.
        data: training photos.
        path: of the bundle.
        name: of the bundle.
        note: where the photos come from and under which licences.
        prior: "context" or "factorized".
        parts: the pretrained parts that the run was trained around.

    Raises:
        InputError: not a run's folder, or one without a checkpoint.
        UsageError: another prior for a run that keeps files.
    """
    record, averaged = load_run(run)
    config, options = _settings(run, record)
    model, networks, integers = _stored(config, averaged["model"], parts)
    if PHASES[options.phase].keeps_files:
        coder, encoder = _kept(run, record, prior)
        integers |= encoder
    else:
        planes = _planes(model, data, options, parts)
        network = ContextNetwork(options.context(config.M), config.anchors)
        network.load_state_dict(averaged["prior"])
        network.eval().requires_grad_(False)
        coder = count_tables(model, planes, network if prior == "context" else None)
        if model.space.takes_backbone:
            networks["correlation"] = calibrate(model, planes).numpy()
    provenance = _portable({**record, "photos": note, "commit": _commit()})
    vae = "pretrained" if parts.vae is not None else "custom"
    header = {
        "name": name,
        "licence": "MIT",
        "stride": model.stride,
        "parts": {"vae": vae, "hyperprior": "custom", "unet": "custom"},
        "model": config.as_dict(),
        "provenance": provenance,
    }
    if any(key.startswith(ADAPTED) for key in networks):
        header["fitted_to"] = record["unet"]
    bundle = save_bundle(path, header, networks, coder, integers)
    log.info("%s: %d bytes, fingerprint %s", path, path.stat().st_size, bundle.fingerprint.hex())
    text = json.dumps(provenance, indent=2, sort_keys=True) + "\n"
    write_whole(path.with_suffix(".provenance.json"), text.encode(), force=True)
    _update_manifest(bundle)
    return bundle


def _kept(run: Path, record: dict[str, Any], prior: str) -> tuple[Tables | ContextPrior, Arrays]:
    """Prior and integer encoder of the bundle that a run started from, whose files it keeps."""
    start = load_bundle(find_bundle(record["init_from"]["path"]))
    if start.fingerprint.hex() != record["init_from"]["fingerprint"]:
        raise InputError(f"{start.path}: not the bundle any more that {run} started from")
    if prior == "factorized" and isinstance(start.prior, ContextPrior):
        raise UsageError(f"--prior does not apply: {run} keeps files, and so the prior, as it is")
    return start.prior, {k: v for k, v in start.integers.items() if k.startswith(ENCODER)}


def _stored(
    config: ModelConfig, state: dict[str, Tensor], parts: Parts
) -> tuple[BkSdmCompression, dict[str, NDArray[Any]], Arrays]:
    """A run's model as a decoder will see it, and its networks as the bundle stores them.

    What there is as integers is not stored as floats too.
    """
    model = BkSdmCompression(config, vae=parts.vae)
    adapted = lora_arrays(state)
    if "backbone.context" in state:
        adapted["context"] = state["backbone.context"]
    model.load_own({k: v for k, v in state.items() if not k.startswith("backbone.")})
    model.eval().requires_grad_(False)
    own, integers = model.own_state(), integer_arrays(model) if has_grids(model) else {}
    doubles = own.keys() & float_state(integers).keys()
    half = {k: v.half() if _can_shrink(k) else v for k, v in own.items() if k not in doubles}
    model.load_own({k: own[k] for k in doubles} | {k: v.float() for k, v in half.items()})
    if integers:
        integers = integer_arrays(model)
        exact = {k: torch.from_numpy(v) for k, v in float_state(integers).items()}
        model.load_own(model.own_state() | exact)
    half |= {k: v.half() for k, v in adapted.items()}
    return model, {k: v.cpu().numpy() for k, v in half.items()}, integers


def parts_of(run: Path, bk_sdm: Path | None, vae: Path | None) -> Parts:
    """The pretrained parts for exporting a run.

    Raises:
        InputError: not a run's folder.
        UsageError: the run needs a VAE and none is given, or the other way round.
    """
    config, options = _settings(run, load_run(run)[0])
    if options.phase == "vae":
        if bk_sdm is not None or vae is not None:
            raise UsageError(f"--vae does not apply: {run} has a VAE of its own")
        return NO_PARTS
    return load_parts(config, bk_sdm, vae, with_unet=False)


def _settings(run: Path, record: dict[str, Any]) -> tuple[ModelConfig, TrainOptions]:
    try:
        return ModelConfig(**record["model"]), TrainOptions(**record["options"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{run}: a run of another version ({error})") from error


@torch.inference_mode()
def _planes(
    model: BkSdmCompression, data: Sequence[Folder], options: TrainOptions, parts: Parts
) -> list[Tensor]:
    """y of some training photos, cut to whole cells of z."""
    cache = Path(options.latents) if options.latents is not None else None
    photos = Photos(data, model.stride if cache is None else options.image_size)
    each = -(-len(photos) // COUNTED_PHOTOS)
    if cache is not None and parts.vae is not None and cache.exists():
        cached = Latents(photos, parts.vae, cache, options.image_size).planes
        whole = cached[:: -(-len(cached) // COUNTED_PHOTOS)]
        return [_whole(plane[None].float(), model.factor) for plane in whole]
    chosen = [image[None].float() / 255 for image in photos.images[::each]]
    return [model.encode(_whole(x, model.stride)) for x in chosen]


def _whole(plane: Tensor, cell: int) -> Tensor:
    height, width = (side // cell * cell for side in plane.shape[-2:])
    return plane[..., :height, :width]


@torch.inference_mode()
def calibrate(model: BkSdmCompression, latents: list[Tensor]) -> Tensor:
    """Correlation of y and its mean at every level, int16 [levels], in thousandths.

    Measured at a few levels over a part of the photos, linear in between.
    """
    anchors = np.linspace(0, MAX_LEVEL, CALIBRATED_LEVELS).round()
    correlations, pairs = [], [(y, model.h_a(y)) for y in latents[::CALIBRATED_EVERY]]
    for level in anchors:
        position = torch.tensor([level_to_position(level)], dtype=torch.float32)
        step = model.quantiser.step(position)
        sums = np.zeros(3)
        for y, z in pairs:
            mean = model.believe((z / step).round(), position).mean
            sums += [float((a * b).sum()) for a, b in ((y, mean), (y, y), (mean, mean))]
        correlations.append(sums[0] / np.sqrt(sums[1] * sums[2]))
    between = np.interp(np.arange(LEVELS), anchors, correlations)
    return torch.from_numpy(np.rint(between * CORRELATION_UNIT).astype(np.int16))


def _update_manifest(bundle: Bundle) -> None:
    """Enter the bundle into the manifest of its folder, where there is one."""
    manifest = bundle.path.with_name("manifest.json")
    if not manifest.exists():
        return
    content = json.loads(manifest.read_text("utf-8"))
    if manifest.parent.resolve() != weights_folder().resolve():
        return  # somebody else's
    entry = {
        "name": bundle.name,
        "file": bundle.path.name,
        "fingerprint": bundle.fingerprint.hex(),
        "sha256": hashlib.sha256(bundle.path.read_bytes()).hexdigest(),
        "licence": bundle.header["licence"],
        "origin": f"bkcodec train; see {bundle.path.stem}.provenance.json",
    }
    entries = {e["name"]: e for e in content["bundles"]} | {bundle.name: entry}
    text = json.dumps({"bundles": list(entries.values())}, indent=2) + "\n"
    write_whole(manifest, text.encode(), force=True)
    shipped_bundles.cache_clear()


def _portable(record: Any) -> Any:
    """A record that names files outside of the working directory without their folders."""
    if isinstance(record, dict):
        return {k: _portable(v) for k, v in record.items()}
    if isinstance(record, list):
        return [_portable(v) for v in record]
    return _OUTSIDE.sub("", record) if isinstance(record, str) else record


def _commit() -> str:
    """The commit of the checkout that exports, or "unknown" outside of one."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _can_shrink(name: str) -> bool:
    """Quantisation steps stay float32: they are part of the bitstream. Integers stay integers."""
    return not name.startswith(("quantiser.", "correlation"))
