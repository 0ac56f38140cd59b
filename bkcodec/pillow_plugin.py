"""Pillow support: importing this module makes ``Image.open`` and ``save`` know .bkc.

>>> import bkcodec.pillow_plugin
>>> from PIL import Image
>>> Image.new("RGB", (40, 30), "navy").save("navy.bkc", quality=50)
>>> Image.open("navy.bkc").size
(40, 30)

``open`` checks the file and reads its header; pixels are decoded on ``load()``, as the image's
``decode_options`` say (a ``DecodeOptions`` that may be replaced before). ``save`` takes
``quality``, ``target``, ``target_bpp``, ``target_size``, ``regions``, ``quality_map``, ``adapt``,
``model``, ``device``, ``strip`` and ``alpha`` (see ``EncodeOptions``) and, as for other formats,
``icc_profile``, ``exif`` and ``xmp``; an unknown keyword is an error. Pillow empties a file before
it asks a plugin to write it, so that an error on the way would lose the old one: ``Image.save`` is
wrapped for paths in this format, which appear whole or not at all.
"""

from __future__ import annotations

import errno
import functools
import io
import os
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from PIL import Image, ImageFile

from bkcodec.container import MAGIC, container_from_bytes, read_file
from bkcodec.errors import BkcError
from bkcodec.files import write_whole
from bkcodec.options import DecodeOptions, EncodeOptions

_FORMAT, _EXTENSION = "BKC", ".bkc"
_METADATA = ("icc_profile", "exif", "xmp")
_OPTIONS = (
    *("quality", "target", "target_bpp", "target_size", "regions", "quality_map", "adapt"),
    *("model", "device", "strip", "alpha"),
)


class BkcImageFile(ImageFile.ImageFile):
    """A .bkc file as Pillow sees it."""

    format = _FORMAT
    format_description = "bkcodec image"
    decode_options = DecodeOptions()
    _data = b""  # the file's bytes until they are decoded

    def _open(self) -> None:
        if self.fp is None:
            raise SyntaxError("no file")
        limits = self.decode_options.limits
        try:
            data = read_file(cast(BinaryIO, self.fp), limits)
            container = container_from_bytes(data, limits)
        except BkcError as error:
            raise SyntaxError(str(error)) from error  # Pillow's way of saying "not mine"
        self._size = (container.width, container.height)
        alpha = "A" if container.alpha is not None else ""
        self._mode = ("L" if container.greyscale else "RGB") + alpha
        self.info.update(container.metadata.for_pillow())
        self._data = data

    def load(self) -> Any:
        """Decode the pixels, once."""
        if self._data:
            from bkcodec.codec import decode

            pixels = decode(self._data, self.decode_options).tobytes()
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            self.fp, self._data = io.BytesIO(pixels), b""
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    fp.write(_encoded(image, image.encoderinfo))


def _encoded(image: Image.Image, keywords: dict[str, Any]) -> bytes:
    """The file of an image.

    Raises:
        TypeError: a keyword that is none of ours, or metadata that are not bytes.
    """
    from bkcodec.codec import encode

    unknown = keywords.keys() - {*_OPTIONS, *_METADATA}
    if unknown:
        known = ", ".join((*_OPTIONS, *_METADATA))
        raise TypeError(f"saving as .bkc takes {known}, not {', '.join(sorted(unknown))}")
    options = {name: keywords[name] for name in _OPTIONS if name in keywords}
    described = image.copy()
    metadata = {name: keywords[name] for name in _METADATA if name in keywords}
    if isinstance(metadata.get("exif"), Image.Exif):
        metadata["exif"] = metadata["exif"].tobytes()
    for name, block in metadata.items():
        if not isinstance(block, bytes | None):
            raise TypeError(f"{name} is bytes, not {type(block).__name__}")
    described.info.update(metadata)
    return encode(described, EncodeOptions(**options))


def _saving_whole(save: Any) -> Any:
    """Pillow's ``Image.save``, but for .bkc files given by path."""

    @functools.wraps(save)
    def wrapped(image: Image.Image, fp: Any, format: str | None = None, **params: Any) -> None:
        if isinstance(fp, str | bytes | os.PathLike):
            path = Path(os.fsdecode(fp))
            name = format or (_FORMAT if path.suffix.lower() == _EXTENSION else "")
            if name.upper() == _FORMAT:
                if not path.parent.is_dir():  # as for other formats
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
                write_whole(path, _encoded(image, params), force=True)
                return
        save(image, fp, format, **params)

    return wrapped


Image.register_open(_FORMAT, BkcImageFile, _accept)
Image.register_save(_FORMAT, _save)
Image.register_extension(_FORMAT, _EXTENSION)
Image.register_mime(_FORMAT, "image/x-bkc")
setattr(Image.Image, "save", _saving_whole(Image.Image.save))  # noqa: B010 (for mypy)
