"""Whatever somebody may call a photo, or a .bkc file, in Python."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bkcodec.errors import BkcError
from bkcodec.files import printable, read_whole
from bkcodec.image.opening import open_header
from bkcodec.options import Limits

AnyPath: TypeAlias = str | os.PathLike[str]
PhotoSource: TypeAlias = (
    Image.Image | AnyPath | bytes | bytearray | memoryview | NDArray[np.generic]
)
FileSource: TypeAlias = AnyPath | bytes | bytearray | memoryview
_BYTES = (bytes, bytearray, memoryview)
_KINDS = {np.dtype(np.uint8): (1, 2, 3, 4), np.dtype(np.uint16): (1,)}  # of arrays, with channels


def image_from(source: PhotoSource, limits: Limits = Limits()) -> Image.Image:  # noqa: B008
    """A Pillow image of a photo; the pixels of a file are not decoded yet.

    Args:
        source: an image, the path of an image file or its bytes, or an array: uint8 [H, W] or
            [H, W, channels] of grey, grey and alpha, RGB or RGBA, or uint16 [H, W].
        limits: what is accepted of a file.

    Raises:
        TypeError: anything else.
        InputError: a file that is no image.
        LimitError: more pixels than allowed.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        channels = source.shape[-1] if source.ndim == 3 else 1
        if source.ndim not in (2, 3) or channels not in _KINDS.get(source.dtype, ()):
            raise TypeError(
                f"an array of {source.dtype} {list(source.shape)}; uint8 [H, W] or [H, W, 1 to 4] "
                "and uint16 [H, W] are photos"
            )
        return Image.fromarray(source[..., 0] if source.ndim == 3 and channels == 1 else source)
    if isinstance(source, (*_BYTES, str, os.PathLike)):
        return open_header(io.BytesIO(bytes_from(source, limits)), limits)
    raise TypeError(
        f"a photo is a Pillow image, a path, bytes or a NumPy array, not {type(source).__name__}"
    )


def bytes_from(source: FileSource, limits: Limits = Limits()) -> bytes:  # noqa: B008
    """The bytes of a file, from its path or as they are.

    Raises:
        TypeError: neither path nor bytes.
        InputError: a file that cannot be read.
        LimitError: too long.
    """
    if isinstance(source, _BYTES):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        try:
            return read_whole(Path(source), limits.max_file_bytes)
        except BkcError as error:
            raise type(error)(f"{printable(os.fspath(source))}: {error}") from error
    raise TypeError(f"a file is a path or bytes, not {type(source).__name__}")
