"""Ray: photos of Ray Data encoded and decoded in batches, and whole folders or tars on a cluster.

>>> import ray
>>> from bkcodec.integrations.ray import Encoder, ray_encode
>>> photos = ray.data.read_binary_files("s3://bucket/photos/")
>>> eight = ray.data.ActorPoolStrategy(size=8)
>>> photos.map_batches(Encoder, fn_constructor_kwargs={"column": "bytes"}, compute=eight)
>>> rows = ray_encode(["s3://bucket/photos/"], "s3://bucket/shards/")

Ray sets OMP_NUM_THREADS to the CPUs of a task, which is how many threads the networks then use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bkcodec.codec import Codec, decode, encode
from bkcodec.errors import extra
from bkcodec.integrations.tars import encode_shard, planned
from bkcodec.options import DecodeOptions, EncodeOptions

with extra("ray", "bkcodec.integrations.ray"):
    import ray.data

PHOTOS_PER_SHARD = 1000
Batch = dict[str, NDArray[Any]]  # columns by name, all of the same length


def encode_batches(
    batch: Batch, column: str = "image", options: EncodeOptions | None = None
) -> Batch:
    """Replace a column of photos by one of .bkc files, for ``map_batches``.

    Args:
        batch: the column holds the bytes of image files (``read_binary_files``), or arrays uint8
            [H, W, 1 to 4] (``read_images``).
        column: its name.
        options: as for ``bkcodec.encode``.

    Raises:
        BkcError: a photo that cannot be encoded.
    """
    return batch | {column: _objects([encode(photo, options) for photo in batch[column]])}


def decode_batches(
    batch: Batch, column: str = "image", options: DecodeOptions | None = None
) -> Batch:
    """Replace a column of .bkc files by one of arrays uint8 [H, W, 3], for ``map_batches``.

    Args:
        batch: the column holds bytes.
        column: its name.
        options: as for ``bkcodec.decode``.

    Raises:
        BkcError: a file that cannot be decoded.
    """
    images = [np.asarray(decode(file, options).convert("RGB")) for file in batch[column]]
    n_shapes = len({image.shape for image in images})
    return batch | {column: np.stack(images) if n_shapes == 1 else _objects(images)}


class Encoder:
    """``encode_batches`` as an actor, for ``map_batches``: the networks are loaded once, at first.

    Say how many with ``compute``, and what each takes with ``num_cpus`` or ``num_gpus``, which may
    be fractions. A GPU needs ``EncodeOptions(device="cuda")``.
    """

    def __init__(self, column: str = "image", options: EncodeOptions | None = None) -> None:
        self.column, self.options = column, options or EncodeOptions()
        self.codec = Codec(self.options.model, self.options.device, self.options.needed_backbone)

    def __call__(self, batch: Batch) -> Batch:
        """See ``encode_batches``."""
        files = [self.codec.encode(photo, self.options) for photo in batch[self.column]]
        return batch | {self.column: _objects(files)}


class Decoder:
    """``decode_batches`` as an actor; see ``Encoder``."""

    def __init__(self, column: str = "image", options: DecodeOptions | None = None) -> None:
        self.column, self.options = column, options

    def __call__(self, batch: Batch) -> Batch:
        """See ``decode_batches``; networks stay loaded from the first file that needs them."""
        return decode_batches(batch, self.column, self.options)


def _objects(items: list[Any]) -> NDArray[Any]:
    """A column of them; NumPy would make one array of equal shapes, and cut zeros off bytes."""
    column = np.empty(len(items), object)
    column[:] = items
    return column


def ray_encode(
    inputs: str | Iterable[str],
    out: str,
    options: EncodeOptions | None = None,
    photos_per_shard: int = PHOTOS_PER_SHARD,
    force: bool = False,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **remote: Any,
) -> list[dict[str, Any]]:
    """Encode photos on a Ray cluster into tar shards that WebDataset reads.

    A shard is one task, and there whole or not at all. A task whose worker dies is done again, by
    another, and gives the same bytes; a call that was broken off is called again, and goes on with
    the shards that are not there.

    Args:
        inputs: paths or URLs of photos, tars, and folders of both. All workers must see them.
        out: folder of the shards, by path or URL. A tar keeps its name; photos become
            ``photos-000000.tar`` and so on, in the order of their names below the input.
        options: as for ``bkcodec.encode``.
        photos_per_shard: of photos that are in no tar.
        force: make shards that are there already once more.
        num_cpus: of a task; the networks use so many threads.
        num_gpus: of a task; a GPU needs ``EncodeOptions(device="cuda")``.
        remote: further arguments of ``ray.data.Dataset.map``: ``max_retries``, say.

    Returns:
        A row for each shard; see ``integrations.tars.Outcome``. Photos that cannot be encoded are
        in their shard as they were, and named in ``failures``; a shard that cannot be made has an
        ``error``.

    Raises:
        InputError: nothing to do, or names that collide.
    """
    chosen = options or EncodeOptions()

    def work(row: dict[str, Any]) -> dict[str, Any]:
        return encode_shard(row["item"], chosen, force).as_dict()

    paths = [inputs] if isinstance(inputs, str) else list(inputs)
    orders = planned(paths, out, photos_per_shard)
    dataset = ray.data.from_items(orders, override_num_blocks=len(orders))
    rows = dataset.map(work, num_cpus=num_cpus, num_gpus=num_gpus, **remote).take_all()
    return sorted(rows, key=lambda row: str(row["shard"]))
