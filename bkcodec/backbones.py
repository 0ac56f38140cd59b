"""Backbones that the user keeps: a name, a directory, and the SHA-256 of every file in it.

``bkcodec models add DIR --name NAME`` writes them to ``backbones.json`` in the user's configuration
folder (or in $BKCODEC_HOME). A backbone that is used by name is compared with what was recorded, so
a file that was changed, cut or lost is refused before it decodes pictures differently.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import platformdirs

from bkcodec.errors import BkcError, InputError, UnsupportedError, UsageError, first_line
from bkcodec.files import printable, write_whole

SUFFIXES = {".json", ".safetensors"}  # of the files that are read
PARTS = ("vae", "unet", "scheduler", "text_encoder")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\w+))?")
_REVISION = re.compile(r"[0-9a-f]{40}")
_CHUNK = 2**20
LOCK_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Registered:
    """A backbone in the registry; ``files`` maps relative paths to SHA-256."""

    name: str
    path: Path
    files: dict[str, str]


def registry_file() -> Path:
    """Where the registry is kept."""
    configured = platformdirs.user_config_path("bkcodec", appauthor=False, roaming=True)
    return Path(os.environ.get("BKCODEC_HOME") or configured) / "backbones.json"


def registered() -> list[Registered]:
    """All backbones in the registry.

    Raises:
        UnsupportedError: it is damaged or cannot be read.
    """
    path = registry_file()
    try:
        if path.exists() and not path.is_file():
            raise UnsupportedError(f"{printable(path)}: is no regular file")
        content = json.loads(path.read_text("utf-8"))["backbones"]
        return [Registered(str(e["name"]), Path(e["path"]), dict(e["files"])) for e in content]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnsupportedError(
            f"{printable(path)}: damaged ({error}). Remove it and add again."
        ) from error


def add(directory: Path, name: str) -> Registered:
    """Record a directory under a name, replacing an earlier one of that name.

    Raises:
        InputError: no directory, or nothing in it that could be used.
        UsageError: not a name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {printable(name)}: letters, digits, '.', '_' and '-' only")
    if not directory.is_dir():
        raise InputError(f"{printable(directory)}: not a directory")
    files = {k: _sha256(directory / k) for k in _files(directory)}
    if not any(k.endswith(".safetensors") for k in files):
        raise InputError(f"{printable(directory)}: no .safetensors file in diffusers layout")
    entry = Registered(name, directory.resolve(), files)
    with locked():
        _write([e for e in registered() if e.name != name] + [entry])
    return entry


def remove(name: str) -> None:
    """Forget a name; the files stay.

    Raises:
        InputError: no such name.
    """
    with locked():
        entries = registered()
        kept = [e for e in entries if e.name != name]
        if len(kept) == len(entries):
            raise InputError(f"there is no bundle or backbone {printable(name)} to remove")
        _write(kept)


@contextmanager
def locked() -> Iterator[None]:
    """Between reading the registry and writing it, no other process does."""
    from filelock import FileLock, Timeout

    path = registry_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
            yield
    except (OSError, Timeout) as error:
        raise BkcError(f"{printable(path)}: cannot be locked ({first_line(error)})") from error


def find_directory(source: str) -> Path:
    """The directory of a backbone given by registered name, by path, or as OWNER/NAME@REVISION.

    Raises:
        UnsupportedError: none of these, a file that is not what was recorded, or no download.
        UsageError: a repository without a pinned revision.
    """
    if Path(source).is_dir() and not _NAME.fullmatch(source):
        return Path(source)  # a path, whatever the registry says
    for entry in registered():
        if entry.name == source:
            verify(entry)
            return entry.path
    if Path(source).is_dir():
        return Path(source)
    match = _REPOSITORY.fullmatch(source)
    if match is not None and not Path(source).exists():
        if not _REVISION.fullmatch(match[2] or ""):
            raise UsageError(
                f"{source}: neither a directory nor a recorded backbone. A repository needs a "
                "pinned revision: OWNER/NAME@COMMIT (40 hexadecimal digits)"
            )
        folder = _download(match[1], match[2])
        if isinstance(folder, str):
            raise UnsupportedError(f"{source}: cannot be fetched ({folder})")
        return folder
    names = ", ".join(e.name for e in registered()) or "none"
    raise UnsupportedError(f"{printable(source)}: not a directory; recorded backbones: {names}")


def verify(entry: Registered) -> None:
    """Compare every file with what was recorded.

    Raises:
        UnsupportedError: one is missing, changed or new.
    """
    present = set(_files(entry.path)) if entry.path.is_dir() else set()
    for name in sorted(present ^ entry.files.keys()):
        state = "is new" if name in present else "is missing"
        raise UnsupportedError(
            f"backbone {entry.name}: {entry.path / name} {state}. "
            "If that is right, record it again with bkcodec models add."
        )
    for name, recorded in entry.files.items():
        if _sha256(entry.path / name) != recorded:
            raise UnsupportedError(
                f"backbone {entry.name}: {entry.path / name} was changed since it was recorded"
            )


def _files(directory: Path) -> Iterator[str]:
    """Relative paths of what is read: the directory's own files and those of its parts."""
    try:
        for folder in (directory, *(directory / part for part in PARTS)):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.suffix in SUFFIXES and path.is_file():
                    yield path.relative_to(directory).as_posix()
    except OSError as error:
        raise InputError(f"{printable(directory)}: cannot be read ({error.strerror})") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _write(entries: list[Registered]) -> None:
    content = [{"name": e.name, "path": str(e.path), "files": e.files} for e in entries]
    write_whole(
        registry_file(), (json.dumps({"backbones": content}, indent=2) + "\n").encode(), force=True
    )


@lru_cache
def _download(repository: str, revision: str) -> Path | str:
    """From Hugging Face, or from its cache; only what is read. Or why not: it is asked once."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [f"{part}/*{suffix}" for part in PARTS for suffix in sorted(SUFFIXES)]
    patterns += ["config.json", "diffusion_pytorch_model*.safetensors"]  # of a VAE alone
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=patterns)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        return first_line(error)
    return Path(folder)
