"""From a finished run to a bundle: networks to float16, tables counted over training photos."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bkcodec.bundle import Bundle, save_bundle, shipped_bundles
from bkcodec.config import LEVELS
from bkcodec.errors import InputError
from bkcodec.models.compression import BkSdmCompression, ModelConfig
from bkcodec.tables import Floats, build_tables, laplace_cumulative
from bkcodec.train.checkpoint import load_averaged
from bkcodec.train.data import Photos

log = logging.getLogger(__name__)

SAMPLES = 200_000  # cells of z a channel that the tables are counted over
COUNTED_PHOTOS = 256  # at most; evenly spread over the folder
TAIL_SHARE = 0.01  # weight of a wide Laplace distribution, for what the photos did not show
HEADROOM = 1.5  # tables reach this much further than the largest value seen


@torch.inference_mode()
def export_bundle(
    model: BkSdmCompression, photos: Photos, path: Path, *, name: str, licence: str,
    provenance: dict[str, Any],
) -> Bundle:  # fmt: skip
    """Freeze the tables of a trained model and write its bundle.

    The tables count the symbols that the encoder would send: z of the training photos, cut at the
    bin edges of each level. Nothing is left to the noise that training used instead of rounding.
    Quantiles and an auxiliary loss are therefore not needed.
    """
    half = {k: v.half() if _can_shrink(k) else v for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.float() for k, v in half.items()})  # what a decoder will see
    samples = _collect(model, photos)
    steps = model.quantiser.step(torch.linspace(0, 1, LEVELS))[:, :, 0, 0].numpy()
    n = samples.shape[1]
    tail = laplace_cumulative(1.5 * samples.std(axis=1))

    def cumulative(channel: int, z: Floats) -> Floats:
        counted = np.searchsorted(samples[channel], z) / n
        return (1 - TAIL_SHARE) * counted + TAIL_SHARE * tail(channel, z)

    bounds = HEADROOM * np.abs(samples).max(axis=1)
    tables = build_tables(cumulative, steps, bounds)
    header = {
        "name": name, "licence": licence, "stride": model.stride,
        "parts": {"vae": "custom", "hyperprior": "custom", "unet": "custom"},
        "model": model.config.as_dict(), "provenance": provenance,
    }  # fmt: skip
    networks = {k: v.cpu().numpy() for k, v in half.items()}
    bundle = save_bundle(path, header, networks, tables)
    log.info("%s: %d bytes, fingerprint %s", path, path.stat().st_size, bundle.fingerprint.hex())
    return bundle


def export_run(run: Path, data: Path, path: Path, name: str, note: str | None = None) -> Bundle:
    """Write the bundle of a run's averaged weights, with its provenance record beside it.

    ``note`` says where the photos come from and under which licences.

    Raises:
        InputError: not a run's folder, or one without a checkpoint.
    """
    try:
        record = json.loads((run / "run.json").read_text("utf-8"))
        validation = json.loads((run / "validation.json").read_text("utf-8"))
        averaged = load_averaged(run)
    except (OSError, ValueError) as error:
        raise InputError(f"{run}: not a folder of a run with a checkpoint ({error})") from error
    model = BkSdmCompression(ModelConfig(**record["model"]))
    model.load_state_dict(averaged)
    provenance = {**record, "photos": note, "validation": validation, "commit": _commit()}
    bundle = export_bundle(
        model.eval(), Photos(data, model.stride), path, name=name, licence="MIT",
        provenance=provenance,
    )  # fmt: skip
    text = json.dumps(provenance, indent=2, sort_keys=True) + "\n"
    path.with_suffix(".provenance.json").write_text(text, "utf-8")
    _update_manifest(bundle, validation["minutes"])
    return bundle


def _update_manifest(bundle: Bundle, minutes: float) -> None:
    """Enter the bundle into the manifest of its folder, where there is one."""
    manifest = bundle.path.with_name("manifest.json")
    if not manifest.exists():
        return
    content = json.loads(manifest.read_text("utf-8"))
    entry = {
        "name": bundle.name, "file": bundle.path.name, "fingerprint": bundle.fingerprint.hex(),
        "sha256": hashlib.sha256(bundle.path.read_bytes()).hexdigest(),
        "licence": bundle.header["licence"],
        "origin": f"bkcodec train, {minutes:g} minutes; see {bundle.path.stem}.provenance.json",
    }  # fmt: skip
    others = [e for e in content["bundles"] if e["name"] != bundle.name]
    text = json.dumps({"bundles": [entry, *others]}, indent=2) + "\n"
    manifest.write_text(text, "utf-8")
    shipped_bundles.cache_clear()


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
    """Quantisation steps stay float32: they are part of the bitstream."""
    return not name.startswith("quantiser.")


def _collect(model: BkSdmCompression, photos: Photos) -> NDArray[np.float32]:
    """Sorted values of z, [M, about SAMPLES], drawn evenly from the photos."""
    rng = np.random.default_rng(0)
    chosen = photos.images[:: -(-len(photos.images) // COUNTED_PHOTOS)]
    per_photo = SAMPLES // len(chosen) + 1
    drawn = []
    for image in chosen:
        height, width = (side // model.stride * model.stride for side in image.shape[:2])
        x = torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
        z = model.analyse(x)[1][0].flatten(1).numpy()
        drawn.append(z[:, rng.choice(z.shape[1], min(per_photo, z.shape[1]), replace=False)])
    return np.sort(np.concatenate(drawn, axis=1), axis=1)
