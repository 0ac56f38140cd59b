"""Pictures that ``bkcodec encode`` reads, from files and from tar shards."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bkcodec.commands.paths import Job
from bkcodec.container import MAGIC
from bkcodec.errors import InputError
from bkcodec.files import printable, read_whole
from bkcodec.options import EncodeOptions, Limits

if TYPE_CHECKING:
    from bkcodec.codec import Codec
    from bkcodec.image.picture import Picture


@dataclass(frozen=True, slots=True)
class Source:
    """An input file: its picture, its size in bytes, its frames."""

    picture: Picture
    n_bytes: int
    n_frames: int


def read_source(
    job: Job, codec: Codec, options: EncodeOptions, limits: Limits, accept_damaged: bool
) -> Source:
    """The picture of an input file; see ``source_from_bytes``."""
    data = read_whole(job.source, limits.max_file_bytes)
    if data.startswith(MAGIC):
        raise InputError(f"{printable(job.name)} is a .bkc file; use decode")
    return source_from_bytes(data, codec, options, limits, accept_damaged)


def source_from_bytes(
    data: bytes, codec: Codec, options: EncodeOptions, limits: Limits, accept_damaged: bool
) -> Source:
    """The picture of an image file.

    What cannot be encoded is refused before its pixels are decoded.

    Args:
        data: the file.
        codec: that is to encode it.
        options: to encode it with.
        limits: what is accepted.
        accept_damaged: whether what is missing of a damaged picture is filled.

    Raises:
        InputError: not an image, or a damaged one.
        LimitError: too many pixels, or not enough memory.
    """
    from bkcodec.codec import READ
    from bkcodec.image.opening import n_frames, open_header
    from bkcodec.image.reading import picture_from_image
    from bkcodec.tiling import check_pixels

    file = io.BytesIO(data)
    image = open_header(file, limits)
    check_pixels(*image.size, codec.coder.stride, limits)  # as a reader will
    codec.check_memory(*image.size, options.tile, beside=READ)
    count = n_frames(io.BytesIO(data), image)
    return Source(picture_from_image(image, accept_damaged), len(data), count)
