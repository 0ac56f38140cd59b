"""PyTorch: datasets of .bkc files, in a folder or in tar shards, as pictures or as latents.

>>> from torch.utils.data import DataLoader
>>> from bkcodec.integrations.torch import BkcFolder, BkcShards
>>> DataLoader(BkcFolder("photos"), batch_size=None, num_workers=2)
>>> DataLoader(BkcShards(["photos-000.tar", "photos-001.tar"], latents=True), num_workers=2)

Workers may be forked or spawned. Each decodes with one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bkcodec.codec import decode
from bkcodec.container import read_path
from bkcodec.errors import InputError, extra
from bkcodec.files import printable
from bkcodec.integrations.tars import samples
from bkcodec.latents import decode_latents
from bkcodec.machine import share_threads
from bkcodec.options import DecodeOptions
from bkcodec.remote import located

with extra("torch", "bkcodec.integrations.torch"):
    import torch
    from torch import distributed
    from torch.utils.data import Dataset, IterableDataset, get_worker_info

EXTENSION = "bkc"


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes an item of a file's bytes.

    Attributes:
        options: as for ``bkcodec.decode``.
        latents: whether items are latents (see ``bkcodec.decode_latents``), not pictures.
        transform: what makes an item of a Pillow image, or of a tensor of latents; without one an
            item is a tensor: uint8 [3, H, W], or float32 [C, h, w] of latents.
    """

    options: DecodeOptions = DecodeOptions()
    latents: bool = False
    transform: Callable[[Any], Any] | None = None

    def __call__(self, data: bytes) -> Any:
        """The item of a .bkc file's bytes."""
        if get_worker_info() is not None:
            share_threads(1)
        if self.latents:
            latents = torch.from_numpy(decode_latents(data, self.options))
            return latents if self.transform is None else self.transform(latents)
        image = decode(data, self.options)
        if self.transform is not None:
            return self.transform(image)
        pixels = np.array(image.convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class BkcFolder(Dataset[Any]):
    """The .bkc files of a folder and its subfolders, in the order of their paths.

    Args:
        folder: where they are.
        options, latents, transform: see ``Reader``.

    Attributes:
        paths: of the files.

    Raises:
        InputError: there are none.
    """

    def __init__(
        self,
        folder: str | Path,
        options: DecodeOptions = DecodeOptions(),  # noqa: B008
        latents: bool = False,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.paths = sorted(Path(folder).rglob(f"*.{EXTENSION}"))
        if not self.paths:
            raise InputError(f"{printable(folder)}: no .bkc files in this folder")
        self.reader = Reader(options, latents, transform)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self.reader(read_path(self.paths[index], self.reader.options.limits))


class BkcShards(IterableDataset[dict[str, Any]]):
    """The samples of tar shards; each worker of each process reads shards of its own.

    A sample is a dictionary as WebDataset makes it: ``__key__``, the decoded picture or latents as
    ``bkc``, and the bytes of what else belongs to it, by extension.

    Args:
        shards: paths or URLs. More of them than workers, or some have nothing to do.
        options, latents, transform: see ``Reader``.
    """

    def __init__(
        self,
        shards: Sequence[str | Path],
        options: DecodeOptions = DecodeOptions(),  # noqa: B008
        latents: bool = False,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.shards = [str(shard) for shard in shards]
        self.reader = Reader(options, latents, transform)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        index, count = _place()
        for shard in self.shards[index::count]:
            for sample in samples(located(shard)):
                if EXTENSION in sample:
                    yield sample | {EXTENSION: self.reader(sample[EXTENSION])}


def _place() -> tuple[int, int]:
    """This worker's number among those of all processes that train together, and how many."""
    info, rank, size = get_worker_info(), 0, 1
    if distributed.is_available() and distributed.is_initialized():
        rank, size = distributed.get_rank(), distributed.get_world_size()
    if info is None:
        return rank, size
    return rank * info.num_workers + info.id, size * info.num_workers
