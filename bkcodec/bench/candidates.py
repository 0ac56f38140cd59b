"""What is compared: bundles, Pillow's formats, CompressAI's zoo, each with its qualities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bkcodec.errors import UnsupportedError, UsageError

DEFAULT_QUALITIES = (5.0, 20.0, 35.0, 50.0, 70.0, 90.0)
CEILING = "vae-roundtrip"

# Ladders that span about 0.1 to 1.1 bpp on photos (JPEG 2000: the rate itself).
LADDERS: dict[str, tuple[float, ...]] = {
    "jpeg": (3, 8, 17, 30, 47, 67),
    "webp": (0, 4, 15, 35, 58, 78),
    "avif": (2, 15, 28, 40, 51, 62),
    "jxl": (1, 12, 25, 42, 60, 78),
    "jpeg2000": (0.1, 0.2, 0.35, 0.55, 0.8, 1.1),
}
PILLOW_FORMATS = {"jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF", "jxl": "JXL",
                  "jpeg2000": "JPEG2000"}  # fmt: skip
SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "jxl": ".jxl", "jpeg2000": ".jp2"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One codec with its ladder.

    Attributes:
        kind: "bundle", "pillow", "zoo" (a CompressAI model) or "ceiling" (a bundle's VAE alone).
        name: as shown.
        qualities: of the ladder, in the codec's own units, rising.
        source: path of the bundle, Pillow's format name, or the zoo's architecture.
        settings: extra keyword arguments of Pillow's ``save``.
        device: where networks run.
        threads: that networks may use.
        note: what to say about it in the report.
    """

    kind: str
    name: str
    qualities: tuple[float, ...]
    source: str
    settings: dict[str, Any]
    device: str = "cpu"
    threads: int = 0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For a worker, and for the detailed results."""
        return asdict(self)


def bundles(models: Sequence[str], qualities: Sequence[float], device: str) -> list[Candidate]:
    """The bundles to test, and for each the ceiling of its VAE.

    Raises:
        UnsupportedError: an unknown bundle.
        UsageError: two of the same name.
    """
    from bkcodec.bundle import find_bundle, load_bundle

    found = []
    for model in models:
        path = find_bundle(model)
        bundle = load_bundle(path)
        note = f"bundle {bundle.name}, fingerprint {bundle.fingerprint.hex()}"
        shared: dict[str, Any] = {"source": str(path), "settings": {}, "device": device}
        found += [
            Candidate("bundle", bundle.name, tuple(qualities), note=note, **shared),
            Candidate("ceiling", f"{bundle.name}:{CEILING}", (0.0,), **shared,
                      note=f"VAE of {bundle.name} without quantisation: a ceiling, no codec"),
        ]  # fmt: skip
    names = [c.name for c in found]
    if len(set(names)) < len(names):
        raise UsageError(f"two bundles have the same name: {', '.join(sorted(names))}")
    return found


def peers(names: Sequence[str], avif_speed: int) -> list[Candidate]:
    """Peers by name: Pillow's formats, or zoo:ARCHITECTURE[:METRIC].

    Raises:
        UsageError: an unknown name.
        UnsupportedError: a plugin, or weights, that are not here.
    """
    return [zoo_peer(name) if name.startswith("zoo:") else pillow_peer(name, avif_speed)
            for name in names]  # fmt: skip


def pillow_peer(name: str, avif_speed: int) -> Candidate:
    """One of Pillow's formats, with its most effective ordinary settings."""
    if name not in LADDERS:
        raise UsageError(f"unknown peer {name!r}: {', '.join(LADDERS)}, or zoo:ARCHITECTURE")
    if name == "jxl" and find_spec("pillow_jxl") is None:
        raise UnsupportedError("peer jxl needs pillow-jxl-plugin: pip install 'bkcodec[peers]'")
    known: dict[str, tuple[dict[str, Any], str]] = {
        "jpeg": ({"optimize": True, "progressive": True}, "Pillow, optimised progressive"),
        "webp": ({"method": 6}, "Pillow, method 6"),
        "avif": ({"speed": avif_speed}, f"Pillow, speed {avif_speed}"),
        "jxl": ({"effort": 7}, "pillow-jxl-plugin, effort 7"),
        "jpeg2000": ({"irreversible": True, "quality_mode": "rates", "mct": 1},
                     "Pillow, irreversible, by rate"),
    }  # fmt: skip
    settings, note = known[name]
    return Candidate("pillow", name, LADDERS[name], PILLOW_FORMATS[name], settings, note=note)


def zoo_peer(name: str) -> Candidate:
    """A model of CompressAI's zoo at all qualities whose weights are in PyTorch's cache."""
    try:
        from compressai.zoo.image import model_urls
        from torch.hub import get_dir
    except ImportError as error:
        raise UnsupportedError(f"peer {name} needs CompressAI: pip install compressai") from error
    _, architecture, metric = [*name.split(":"), "mse"][:3]
    urls: dict[int, str] = model_urls.get(architecture, {}).get(metric, {})
    if not urls:
        raise UsageError(f"{name!r}: CompressAI's zoo has {', '.join(model_urls)}; mse, ms-ssim")
    cache = Path(get_dir()) / "checkpoints"
    there = tuple(float(q) for q, url in urls.items() if (cache / url.split("/")[-1]).is_file())
    if not there:
        raise UnsupportedError(f"peer {name}: no weights in {cache}; nothing is downloaded here")
    return Candidate("zoo", name.removeprefix("zoo:"), there, architecture, {"metric": metric},
                     note=f"CompressAI zoo, {metric}")  # fmt: skip
