"""What is compared: bundles, Pillow's formats, CompressAI's zoo, each with its qualities."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from bkcodec.errors import UnsupportedError, UsageError, extra
from bkcodec.files import printable
from bkcodec.options import EncodeOptions

DEFAULT_QUALITIES = (5.0, 20.0, 35.0, 50.0, 70.0, 90.0)
CEILING = "vae-roundtrip"
NONE = "none"  # in place of peers
SET_HERE = ("quality", "target_bpp", "target_size", "target", "model", "device")
READERS: dict[str, Callable[[str], Any]] = {  # of options, by the types of their fields
    "bool": {"true": True, "false": False}.__getitem__,
    "int": int,
    "float": float,
    "str": str,
}


@dataclass(frozen=True, slots=True)
class PillowFormat:
    """A format of Pillow.

    Attributes:
        name: Pillow's.
        suffix: of files.
        ladder: qualities that span about 0.1 to 1.1 bpp on photos (JPEG 2000: the rate itself).
        settings: for ``save``: its most effective ordinary ones.
        note: what to say about them.
        mime: where every browser shows the files, their type.
        feature: what Pillow may have been built without.
    """

    name: str
    suffix: str
    ladder: tuple[float, ...]
    settings: dict[str, Any]
    note: str
    mime: str | None = None
    feature: str | None = None


PILLOW = {
    "jpeg": PillowFormat(
        "JPEG",
        ".jpg",
        (3, 8, 17, 30, 47, 67),
        {"optimize": True, "progressive": True},
        "Pillow, optimised progressive",
        "image/jpeg",
    ),
    "webp": PillowFormat(
        "WEBP",
        ".webp",
        (0, 4, 15, 35, 58, 78),
        {"method": 6},
        "Pillow, method 6",
        "image/webp",
        "webp",
    ),
    "avif": PillowFormat(
        "AVIF",
        ".avif",
        (2, 15, 28, 40, 51, 62),
        {"advanced": {"tune": "iq"}},
        "Pillow, tune iq",
        "image/avif",
        "avif",
    ),
    "avif-ssim": PillowFormat(
        "AVIF",
        ".avif",
        (2, 15, 28, 40, 51, 62),
        {"advanced": {"tune": "ssim"}},
        "Pillow, tune ssim",
        "image/avif",
        "avif",
    ),
    "jxl": PillowFormat(
        "JXL", ".jxl", (1, 12, 25, 42, 60, 78), {"effort": 7}, "pillow-jxl-plugin, effort 7"
    ),
    "jpeg2000": PillowFormat(
        "JPEG2000",
        ".jp2",
        (0.1, 0.2, 0.35, 0.55, 0.8, 1.1),
        {"irreversible": True, "quality_mode": "rates", "mct": 1},
        "Pillow, irreversible, by rate",
        None,
        "jpg_2000",
    ),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One codec with its ladder.

    Attributes:
        kind: "bundle", "pillow", "zoo" (a CompressAI model) or "ceiling" (a bundle's VAE alone).
        name: as shown.
        qualities: of the ladder, in the codec's own units, rising.
        source: path of the bundle, key of ``PILLOW``, or the zoo's architecture.
        settings: what else makes it this codec and no other.
        device: where networks run.
        threads: that it may use; 0 = as it likes.
        note: what to say about it in the report.
    """

    kind: str
    name: str
    qualities: tuple[float, ...]
    source: str
    settings: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    threads: int = 0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For a worker, and for the detailed results."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """What must be equal for results to stand side by side."""
        chosen = {"kind": self.kind, "settings": self.settings, "device": self.device}
        return chosen if self.kind in ("bundle", "ceiling") else chosen | {"source": self.source}


def bundles(models: Sequence[str], qualities: Sequence[float], device: str) -> list[Candidate]:
    """The bundles to test, and for each the ceiling of its VAE.

    A bundle given by its file is called by the file's stem. One that is tested with options
    (lite@effort=2) is called with them; its ceiling is that of the bundle.

    Raises:
        UnsupportedError: an unknown bundle.
        UsageError: options that it does not have.
    """
    from bkcodec.bundle import find_bundle, load_bundle

    candidates: dict[str, Candidate] = {}
    for model in models:
        model, text = _with_options(model)
        options = encoder_options(text)
        path = find_bundle(model)
        bundle = load_bundle(path)
        name = printable(path.stem) if Path(model).is_file() else bundle.name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        note = f"bundle {bundle.name}, fingerprint {bundle.fingerprint.hex()}"
        full = f"{name}@{text}" if text else name
        if full in candidates:
            raise UsageError(f"two codecs are called {full}; rename the bundle's file")
        settings: dict[str, Any] = {"sha256": digest}
        candidates[full] = Candidate(
            "bundle",
            full,
            tuple(qualities),
            str(path),
            settings | ({"options": options} if options else {}),
            device,
            note=f"{note}, {text}" if text else note,
        )
        ceiling = f"{name}:{CEILING}"
        note = f"VAE of {name} without quantisation: a ceiling, no codec"
        if ceiling not in candidates:
            candidates[ceiling] = Candidate(
                "ceiling", ceiling, (0.0,), str(path), settings, device, note=note
            )
    return list(candidates.values())


def _with_options(model: str) -> tuple[str, str]:
    """A bundle and the text of its options, which follow an @; a file may have one in its name."""
    name, sign, text = model.rpartition("@")
    return (name, text) if sign and not Path(model).is_file() else (model, "")


def encoder_options(text: str) -> dict[str, Any]:
    """Fields of ``EncodeOptions`` from NAME=VALUE,..., as an encoder takes them.

    Raises:
        UsageError: an unknown one, one that the benchmark sets itself, or a value it cannot have.
    """
    types = {f.name: str(f.type) for f in fields(EncodeOptions) if f.name not in SET_HERE}
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, sign, value = (word.strip() for word in part.partition("="))
        kinds = [kind for kind in READERS if kind in types.get(name, "").split(" | ")]
        if not kinds or not sign or name in values:
            possible = [n for n, t in types.items() if set(t.split(" | ")) & set(READERS)]
            raise UsageError(f"{part!r}: not NAME=VALUE, each once, of {', '.join(possible)}")
        try:
            values[name] = READERS[kinds[0]](value)
        except (ValueError, KeyError):
            raise UsageError(f"{part!r}: {value!r} is not a value of {name}") from None
    EncodeOptions(**values)
    return values


def default_peers() -> list[str]:
    """Pillow's formats that this installation has."""
    return [name for name in PILLOW if _missing(name) is None]


def peers(names: Sequence[str], avif_speed: int, device: str) -> list[Candidate]:
    """Peers by name: Pillow's formats, or zoo:ARCHITECTURE[:METRIC].

    Raises:
        UsageError: an unknown name.
        UnsupportedError: a plugin, or weights, that are not here.
    """
    if NONE in names and len(names) > 1:
        raise UsageError("--peers none stands alone")
    return [
        zoo_peer(name, device) if name.startswith("zoo:") else pillow_peer(name, avif_speed)
        for name in names
        if name != NONE
    ]


def pillow_peer(name: str, avif_speed: int) -> Candidate:
    """One of Pillow's formats."""
    if name not in PILLOW:
        raise UsageError(f"unknown peer {name!r}: {', '.join(PILLOW)}, or zoo:ARCHITECTURE")
    missing = _missing(name)
    if missing is not None:
        raise UnsupportedError(f"peer {name} needs {missing}")
    peer = PILLOW[name]
    settings, note = peer.settings, peer.note
    if peer.name == "AVIF":
        if not _can_tune(settings):  # an older libavif, or another encoder than libaom
            settings, note = {}, "Pillow, its own tune"
        settings, note = settings | {"speed": avif_speed}, f"{note}, speed {avif_speed}"
    return Candidate("pillow", name, peer.ladder, name, settings, note=note)


def _missing(name: str) -> str | None:
    """What to install for one of Pillow's formats, if anything."""
    from PIL import features

    if name == "jxl":
        return None if find_spec("pillow_jxl") else "pillow-jxl-plugin: install bkcodec[peers]"
    feature = PILLOW[name].feature
    if feature is not None and not features.check(feature):
        return f"a Pillow with {feature}; see bkcodec[bench]"
    if name == "avif-ssim" and not _can_tune(PILLOW[name].settings):
        return "a Pillow whose AVIF encoder can be tuned"
    return None


def _can_tune(settings: dict[str, Any]) -> bool:
    """Whether Pillow's AVIF encoder takes these settings."""
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), "AVIF", **settings)
    except (ValueError, OSError):
        return False
    return True


def zoo_peer(name: str, device: str) -> Candidate:
    """A model of CompressAI's zoo at all qualities whose weights are in PyTorch's cache."""
    with extra("zoo", f"peer {name}"):
        from compressai.zoo.image import model_urls
        from torch.hub import get_dir
    _, architecture, metric = [*name.split(":"), "mse"][:3]
    urls: dict[int, str] = model_urls.get(architecture, {}).get(metric, {})
    if not urls:
        raise UsageError(f"{name!r}: CompressAI's zoo has {', '.join(model_urls)}; mse, ms-ssim")
    cache = Path(get_dir()) / "checkpoints"
    qualities = tuple(float(q) for q, url in urls.items() if (cache / url.split("/")[-1]).is_file())
    if not qualities:
        raise UnsupportedError(f"peer {name}: no weights in {cache}; nothing is downloaded here")
    return Candidate(
        "zoo",
        name.removeprefix("zoo:"),
        qualities,
        architecture,
        {"metric": metric},
        device,
        note=f"CompressAI zoo, {metric}",
    )
