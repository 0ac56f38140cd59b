"""Bundles: one .safetensors file with networks, an integer prior and configuration.

The safetensors metadata has one key, ``bkcodec``: JSON with ``version`` (1), ``name``, ``licence``,
``stride``, ``parts`` (what fills each role of vae, hyperprior, unet: "custom", a network of the
bundle, or "pretrained", one that the user has), ``model`` (the sizes of the networks) and
``provenance``. Tensors: ``net.*`` are the networks (float16 or float32; ``net.lora.*`` and
``net.context`` change the pretrained U-Net that the header's ``fitted_to`` marks,
``net.correlation`` is integer); ``tables.lengths``, ``tables.low``, ``tables.weights`` are entropy
tables (see ``prior.tables``); where there are ``prior.*`` arrays, they are the context prior (see
``prior.context``), else the tables are the factorized one; ``int.*`` arrays are integer networks.

The fingerprint of a bundle is the first 4 bytes of a SHA-256 over what the bitstream depends on:
the stride, the prior and the quantisation steps. Decoder networks are not part of it, so they may
improve without breaking files.

``weights/manifest.json`` lists the shipped bundles: name, file, fingerprint, SHA-256, licence. What
the user installs is in a folder of its own, with the same entries (``installed``).
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bkcodec.errors import UnsupportedError
from bkcodec.files import write_whole
from bkcodec.options import LEVELS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bkcodec.prior.context import ContextPrior
    from bkcodec.prior.tables import Tables

    Prior = Tables | ContextPrior

BUNDLE_VERSION = 1
_HERE = Path(__file__).resolve().parent
_HEADER_MAX = 2**24  # bytes; safetensors itself allows 100 MB


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """What the manifest says about a bundle; read without numpy or torch."""

    name: str
    path: Path
    fingerprint: str
    sha256: str
    licence: str
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A loaded bundle.

    Attributes:
        header: the JSON of the safetensors metadata.
        prior: codes the symbols; ``prior.level(i)`` is an ``prior.tables.SymbolCoder``.
        networks: float arrays by name, as stored, without what ``integers`` have.
        fingerprint: 4 bytes.
        integers: arrays of the integer networks by name (formats/networks-1.md), or none.
    """

    path: Path
    header: dict[str, Any]
    prior: Prior
    networks: dict[str, NDArray[np.floating[Any]]]
    fingerprint: bytes
    integers: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As its header says."""
        return str(self.header["name"])

    def state(self) -> dict[str, NDArray[Any]]:
        """The networks for PyTorch, also those that are stored as integers."""
        from bkcodec.engine.floats import float_state

        return self.networks | float_state(self.integers)


def weights_folder() -> Path:
    """The shipped weights: inside an installed package, beside it in a checkout."""
    inside = _HERE / "weights"
    return inside if inside.is_dir() else _HERE.parent / "weights"


@lru_cache
def shipped_bundles() -> tuple[BundleInfo, ...]:
    """The manifest's bundles, the default first.

    Raises:
        UnsupportedError: the installation has no manifest.
    """
    folder = weights_folder()
    try:
        entries = json.loads((folder / "manifest.json").read_text("utf-8"))["bundles"]
    except OSError as error:
        raise UnsupportedError(
            f"no weights in this installation ({error}). Reinstall bkcodec."
        ) from error
    return tuple(
        BundleInfo(
            e["name"], folder / e["file"], e["fingerprint"], e["sha256"], e["licence"], e["origin"]
        )
        for e in entries
    )


def installed_folder() -> Path:
    """Where ``bkcodec models add`` keeps bundles: beside the record of backbones."""
    from bkcodec.backbones import registry_file

    return registry_file().parent / "bundles"


def installed_bundles() -> tuple[BundleInfo, ...]:
    """The bundles that the user installed, in the order of their names (see ``installed``).

    Raises:
        UnsupportedError: what was recorded of one is damaged.
    """
    bundles = []
    for record in sorted(installed_folder().glob("*.json")):
        try:
            e = {k: str(v) for k, v in json.loads(record.read_text("utf-8")).items()}
            path = record.with_name(e["file"])
            bundles.append(
                BundleInfo(
                    *(e["name"], path, e["fingerprint"], e["sha256"], e["licence"], e["origin"])
                )
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnsupportedError(f"{record}: damaged ({error}). Remove it.") from error
    return tuple(bundles)


def find_bundle(name_or_path: str) -> Path:
    """Path of a bundle given by name, shipped or installed, or by file.

    Raises:
        UnsupportedError: neither; the message lists the names.
    """
    by_name = {b.name: b.path for b in shipped_bundles()}
    if name_or_path in by_name:
        return by_name[name_or_path]
    path = Path(name_or_path)
    if path.is_file() and (path.name != name_or_path or path.suffix == ".safetensors"):
        return path  # no name, whatever is installed
    by_name |= {b.name: b.path for b in installed_bundles()}
    if name_or_path in by_name:
        return by_name[name_or_path]
    if path.is_file():
        return path.resolve()  # another folder may be the current one later
    raise UnsupportedError(
        f"unknown bundle {name_or_path!r}: neither a file nor one of {', '.join(by_name)}"
    )


def find_fingerprint(fingerprint: bytes) -> Path:
    """Path of the bundle, shipped or installed, that can decode a file.

    Raises:
        UnsupportedError: none; the message names the fingerprint.
    """
    bundle = bundle_with(fingerprint.hex())
    if bundle is not None:
        return bundle.path
    raise UnsupportedError(
        f"the file needs the bundle with fingerprint {fingerprint.hex()}, which is not installed. "
        "Name its file with --model, or install it with bkcodec models add."
    )


def bundle_with(fingerprint: str) -> BundleInfo | None:
    """The bundle, shipped or installed, that has a fingerprint (8 hexadecimal digits)."""
    for bundles in (shipped_bundles, installed_bundles):
        for bundle in bundles():
            if bundle.fingerprint == fingerprint:
                return bundle
    return None


def bundle_for(fingerprint: bytes, model: str | None = None) -> Path:
    """Path of the bundle that a file needs: the one at hand, or the one that was named.

    Raises:
        UnsupportedError: no such bundle, or the named one is another.
    """
    if model is None:
        return find_fingerprint(fingerprint)
    path = find_bundle(model)
    check_fingerprint(load_bundle(path), fingerprint)
    return path


def check_fingerprint(bundle: Bundle, fingerprint: bytes) -> None:
    """Refuse a bundle that is not the one that a file needs (UnsupportedError)."""
    if bundle.fingerprint != fingerprint:
        raise UnsupportedError(
            f"the file needs the bundle {fingerprint.hex()}, "
            f"{bundle.name} is {bundle.fingerprint.hex()}"
        )


def load_bundle(path: Path) -> Bundle:
    """Read a bundle file, once for as long as it does not change.

    Raises:
        UnsupportedError: missing, damaged, of a newer version, or altered since it was shipped or
            installed.
    """
    path = path.resolve()
    return _load(path, file_mark(path))


def file_mark(path: Path) -> tuple[int, ...]:
    """What tells a file from another that takes its name later.

    Raises:
        UnsupportedError: missing, or no regular file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UnsupportedError(f"{path}: cannot be read ({error.strerror})") from error
    if not path.is_file():
        raise UnsupportedError(f"{path}: cannot be read (no regular file)")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _load(path: Path, mark: tuple[int, ...]) -> Bundle:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnsupportedError(f"{path}: cannot be read ({error.strerror})") from error
    for shipped in shipped_bundles():
        is_it = shipped.path.resolve() == path.resolve()
        if is_it and hashlib.sha256(data).hexdigest() != shipped.sha256:
            raise UnsupportedError(
                f"{path}: damaged (its SHA-256 is not the manifest's). Reinstall."
            )
    if path.parent == installed_folder().resolve():
        _check_installed(path, data)
    return _parse(path, data)


def _check_installed(path: Path, data: bytes) -> None:
    """Refuse an installed bundle that is not what was recorded of it (UnsupportedError)."""
    digest = hashlib.sha256(data).hexdigest()
    if any(b.path.resolve() == path and b.sha256 != digest for b in installed_bundles()):
        raise UnsupportedError(
            f"{path}: damaged (its SHA-256 is not what was recorded). "
            "Remove it with bkcodec models remove, and add it again."
        )


def _parse(path: Path, data: bytes) -> Bundle:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from bkcodec.prior.context import ContextPrior
    from bkcodec.prior.tables import Tables

    header = _header(path, data)
    try:
        arrays = load(data)
        mark = fingerprint(header["stride"], arrays)
        tables = Tables.load(arrays, "tables")
        parts: dict[str, dict[str, Any]] = {"net": {}, "prior": {}, "tables": {}, "int": {}}
        for name, array in arrays.items():
            part, key = name.split(".", 1)
            parts[part][key] = array
    except (SafetensorError, KeyError, ValueError, TypeError, struct.error) as error:
        raise UnsupportedError(f"{path}: not a complete bkcodec bundle ({error})") from error
    prior = ContextPrior(parts["prior"], tables) if parts["prior"] else tables
    if prior.n_levels != LEVELS:
        raise UnsupportedError(f"{path}: a prior of {prior.n_levels} levels, not {LEVELS}")
    channels = header["model"].get("M", prior.n_channels)
    if channels != prior.n_channels:
        raise UnsupportedError(f"{path}: a prior of {prior.n_channels} channels, not {channels}")
    return Bundle(path, header, prior, parts["net"], mark, parts["int"])


def save_bundle(
    path: Path,
    header: dict[str, Any],
    networks: dict[str, NDArray[np.floating[Any]]],
    prior: Prior,
    integers: dict[str, NDArray[Any]] | None = None,
) -> Bundle:
    """Write a bundle file and return it as loaded."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {f"net.{k}": v for k, v in networks.items()} | prior.bundled()
    arrays |= {f"int.{k}": v for k, v in (integers or {}).items()}
    arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}  # save() takes it for granted
    text = json.dumps({"version": BUNDLE_VERSION, **header}, sort_keys=True)
    data = save(arrays, {"bkcodec": text})
    write_whole(path, data, force=True)
    return _parse(path, data)  # where it replaces a shipped one, the manifest is not right yet


def fingerprint(stride: int, arrays: dict[str, Any]) -> bytes:
    """First 4 bytes of the SHA-256 over what the bitstream depends on (see formats/bkc-1.md)."""
    digest = hashlib.sha256(struct.pack("<I", stride))
    names = [k for k in arrays if k.startswith(("prior.", "tables."))]
    for name in sorted([*names, "net.quantiser.log_step"]):
        array = arrays[name]
        digest.update(
            name.encode() + b"\0" + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        )
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:4]


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON of the safetensors metadata, checked."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        if length > min(_HEADER_MAX, len(data) - 8):
            raise ValueError("header too long")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["bkcodec"])
        version, _, _ = (header[k] for k in ("version", "name", "stride"))
        if not all(isinstance(header[k], dict) for k in ("model", "parts")):
            raise ValueError("a header of another form")
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnsupportedError(f"{path}: not a bkcodec bundle") from error
    if version != BUNDLE_VERSION:
        raise UnsupportedError(
            f"{path}: bundle version {version}, this program reads {BUNDLE_VERSION}. "
            "Upgrade bkcodec."
        )
    return dict(header)
