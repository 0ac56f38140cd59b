"""The pictures of a benchmark: every readable photo of a folder, as plain 8-bit RGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bkcodec.errors import BkcError, InputError
from bkcodec.files import IMAGE_SUFFIXES
from bkcodec.image.reading import read_picture

RUN = "run.json"  # marks the output folder of a benchmark


@dataclass(frozen=True, slots=True)
class Photo:
    """One picture.

    Attributes:
        name: its path below the dataset's folder; what is no text in it
            is written as backslash escapes.
        path: PNG of its RGB pixels, upright, without metadata: what every codec gets.
        width, height: in pixels.
        digest: SHA-256 of the pixels.
        note: what of the file the codecs do not get, or "".
    """

    name: str
    path: Path
    width: int
    height: int
    digest: str
    note: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """The pictures, and what was skipped: pairs of name and reason."""

    photos: list[Photo]
    skipped: list[tuple[str, str]]


def prepare(source: Path, folder: Path) -> Dataset:
    """Read a folder (or one file) and write every picture's RGB pixels into ``folder``.

    Raises:
        InputError: no such folder, or nothing readable in it.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    root = source if source.is_dir() else source.parent
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    # A benchmark's own output may lie below: its pictures are no photos.
    outputs = {f.parent for f in files if f.name == RUN}
    files = [
        f
        for f in files
        if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file() and outputs.isdisjoint(f.parents)
    ]
    photos: list[Photo] = []
    skipped: list[tuple[str, str]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = file.relative_to(root).as_posix()
        name = path.encode("utf-8", "backslashreplace").decode()
        try:
            photos.append(_prepare_one(file, name, folder / f"{len(photos):04d}.png"))
        except (BkcError, OSError) as error:
            skipped.append((name, str(error)))
    if not photos:
        reason = f": {skipped[0][1]}" if skipped else ""
        raise InputError(f"{source}: no readable photo{reason}")
    return Dataset(photos, skipped)


def _prepare_one(file: Path, name: str, path: Path) -> Photo:
    with file.open("rb") as stream:
        picture = read_picture(stream)
    notes = ["greyscale"] if picture.greyscale else []
    notes += ["alpha left out"] if picture.alpha is not None else []
    notes += ["ICC profile left out"] if picture.metadata.icc is not None else []
    Image.fromarray(picture.rgb).save(path, compress_level=1)
    width, height = picture.size
    digest = hashlib.sha256(picture.rgb.tobytes()).hexdigest()
    return Photo(name, path, width, height, digest, ", ".join(notes))
