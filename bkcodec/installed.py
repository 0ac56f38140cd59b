"""Bundles that the user installs: copies in a folder, found by name and by fingerprint like ours.

``bkcodec models add FILE`` copies a bundle to ``bundles/`` beside the record of backbones (in the
user's configuration folder, or in $BKCODEC_HOME) and writes NAME.json there: name, file,
fingerprint, SHA-256, licence, origin. A copy that was changed since is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path

from bkcodec import backbones
from bkcodec.bundle import (
    Bundle,
    BundleInfo,
    bundle_with,
    installed_bundles,
    installed_folder,
    load_bundle,
    shipped_bundles,
)
from bkcodec.errors import InputError, UnsupportedError, UsageError
from bkcodec.files import printable, write_whole

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def install(source: Path, name: str | None = None) -> BundleInfo:
    """Copy a bundle and record it under a name, that of its header if none is given.

    Raises:
        UnsupportedError: not a bundle, or one that cannot be read.
        UsageError: not a name.
        InputError: a name that is taken, or a fingerprint that is there already.
    """
    bundle = load_bundle(source)
    _try_out(bundle)
    with backbones.locked():
        return _recorded(bundle, source, name)


def _recorded(bundle: Bundle, source: Path, name: str | None) -> BundleInfo:
    """The copy of a bundle that can be used."""
    data = source.read_bytes()
    name = bundle.name if name is None else name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the name {printable(name)}: letters, digits, '.', '_' and '-' only; "
            "--name gives another"
        )
    fingerprint, digest = bundle.fingerprint.hex(), hashlib.sha256(data).hexdigest()
    twin = bundle_with(fingerprint)
    if twin is not None:
        same = "the same file" if twin.sha256 == digest else "files would not say which of them"
        raise InputError(
            f"{printable(source)}: {twin.name} has the fingerprint {fingerprint} already ({same})"
        )
    if name in taken_names():
        raise InputError(f"the name {name} is taken; --name gives another, models remove frees it")
    file = f"{name}-{digest[:8]}.safetensors"  # another content never has the same name
    licence = str(bundle.header.get("licence", "unknown"))
    origin = f"installed from {printable(source.name)}"
    path = installed_folder() / file
    entry = {"name": name, "file": file, "fingerprint": fingerprint, "sha256": digest}
    text = json.dumps(entry | {"licence": licence, "origin": origin}, indent=2) + "\n"
    write_whole(path, data, force=True)
    write_whole(_record(name), text.encode())
    return BundleInfo(name, path, fingerprint, digest, licence, origin)


def _try_out(bundle: Bundle) -> None:
    """Put a bundle's networks together, where all of them are in it and this machine can.

    Raises:
        UnsupportedError: tensors that do not fit.
    """
    from bkcodec.codec import Codec

    is_whole = set(bundle.header["parts"].values()) == {"custom"}
    if is_whole and (bundle.integers or find_spec("torch")):
        Codec(bundle.path)


def taken_names() -> set[str]:
    """Names of bundles and backbones."""
    bundles = {bundle.name for bundle in (*shipped_bundles(), *installed_bundles())}
    return bundles | {backbone.name for backbone in backbones.registered()}


def uninstall(name: str) -> bool:
    """Take a bundle out again; False where there is none of this name.

    Raises:
        UnsupportedError: it cannot be removed.
    """
    for bundle in installed_bundles():
        if bundle.name == name:
            try:
                _record(name).unlink()
                bundle.path.unlink(missing_ok=True)
            except OSError as error:
                raise UnsupportedError(
                    f"{bundle.path}: cannot be removed ({error.strerror})"
                ) from error
            return True
    return False


def _record(name: str) -> Path:
    return installed_folder() / f"{name}.json"
