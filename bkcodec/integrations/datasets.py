"""Hugging Face datasets: columns of photos whose bytes, in memory and in Parquet, are .bkc files.

>>> import datasets
>>> from bkcodec.integrations.datasets import encode_column
>>> photos = datasets.load_dataset("imagefolder", data_dir="photos", split="train")
>>> encode_column(photos, "image").to_parquet("photos.parquet")

Such a column is a ``datasets.Image`` as before: its photos are decoded when they are looked at. A
program that reads it needs bkcodec, and ``import bkcodec.pillow_plugin`` (or this module), which
tells Pillow what a .bkc file is.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import bkcodec.pillow_plugin  # noqa: F401 (so that datasets.Image opens what is made here)
from bkcodec import __version__
from bkcodec.codec import codec_for, encode
from bkcodec.container import container_from_bytes
from bkcodec.errors import extra
from bkcodec.image.writing import save_rows
from bkcodec.options import DecodeOptions, EncodeOptions

with extra("datasets", "bkcodec.integrations.datasets"):
    from datasets import Image, IterableDataset


def encode_column(
    dataset: Any, column: str, options: EncodeOptions | None = None, **mapping: Any
) -> Any:
    """Have a column of images hold .bkc files.

    Args:
        dataset: a Dataset or DatasetDict, or one that streams, with a column of the feature
            ``datasets.Image``.
        column: its name.
        options: as for ``bkcodec.encode``.
        mapping: further arguments of ``map``: ``num_proc``, say.

    Raises:
        BkcError: a photo that cannot be read or encoded.
    """
    return _mapped(dataset, column, _Encoding(column, options or EncodeOptions()), mapping)


def decode_column(
    dataset: Any, column: str, options: DecodeOptions | None = None, **mapping: Any
) -> Any:
    """Have a column of .bkc files hold PNG files of the decoded photos, which need no bkcodec.

    Args:
        dataset: as ``encode_column`` makes it.
        column: its name.
        options: as for ``bkcodec.decode``.
        mapping: further arguments of ``map``.

    Raises:
        BkcError: a file that cannot be decoded.
    """
    return _mapped(dataset, column, _Decoding(column, options or DecodeOptions()), mapping)


def _mapped(dataset: Any, column: str, work: Any, mapping: dict[str, Any]) -> Any:
    """The dataset with other files in a column; that is about bytes, so nothing is decoded."""
    if isinstance(dataset, dict):
        splits = {name: _mapped(split, column, work, mapping) for name, split in dataset.items()}
        return type(dataset)(splits)
    features = dataset.features.copy()
    features[column] = Image()
    files = dataset.cast_column(column, Image(decode=False))
    if isinstance(files, IterableDataset):  # which does not decode what map says features of
        return files.map(work, **mapping).cast(features)
    return files.map(work, features=features, **mapping)


def _bytes_of(file: dict[str, Any]) -> bytes:
    if file["bytes"] is not None:
        return bytes(file["bytes"])
    with open(file["path"], "rb") as fo:
        return fo.read()


def _renamed(file: dict[str, Any], data: bytes, extension: str) -> dict[str, Any]:
    name = PurePath(file["path"]).with_suffix(extension).name if file["path"] else None
    return {"bytes": data, "path": name}


@dataclass(frozen=True)
class _Encoding:
    """Of one row; the library finds a result of the same work, and version, in its cache."""

    column: str
    options: EncodeOptions
    version: str = field(default=__version__)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        file = row[self.column]
        if file is None:
            return {self.column: None}
        return {self.column: _renamed(file, encode(_bytes_of(file), self.options), ".bkc")}


@dataclass(frozen=True)
class _Decoding:
    """Likewise."""

    column: str
    options: DecodeOptions
    version: str = field(default=__version__)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        file = row[self.column]
        if file is None:
            return {self.column: None}
        container = container_from_bytes(_bytes_of(file), self.options.limits)
        out = io.BytesIO()
        codec = codec_for(container, self.options)
        save_rows(codec.decode_rows(container, self.options), out, "png")
        return {self.column: _renamed(file, out.getvalue(), ".png")}
