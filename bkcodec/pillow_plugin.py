"""Pillow support: importing this module makes ``Image.open`` and ``save`` know .bkc.

>>> import bkcodec.pillow_plugin
>>> from PIL import Image
>>> Image.new("RGB", (40, 30), "navy").save("navy.bkc", quality=50)
>>> Image.open("navy.bkc").size
(40, 30)

``open`` checks the file and reads its header; pixels are decoded on ``load()``. ``save`` takes
``quality``, ``target_bpp``, ``target_size``, ``model``, ``device``, ``strip`` and ``alpha`` (see
``EncodeOptions``) and, as for other formats, ``icc_profile``, ``exif`` and ``xmp``.
"""

from __future__ import annotations

import io
from typing import IO, Any, BinaryIO, cast

from PIL import Image, ImageFile

from bkcodec.container import MAGIC, container_from_bytes
from bkcodec.errors import BkcError
from bkcodec.files import read_limited
from bkcodec.options import DecodeOptions, EncodeOptions

_FORMAT = "BKC"
_METADATA = ("icc_profile", "exif", "xmp")
_OPTIONS = ("quality", "target_bpp", "target_size", "model", "device", "strip", "alpha")


class BkcImageFile(ImageFile.ImageFile):
    """A .bkc file as Pillow sees it."""

    format = _FORMAT
    format_description = "bkcodec image"
    _data = b""  # the file's bytes until they are decoded

    def _open(self) -> None:
        if self.fp is None:
            raise SyntaxError("no file")
        limits = DecodeOptions().limits
        try:
            data = read_limited(cast(BinaryIO, self.fp), limits.max_file_bytes)
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

            pixels = decode(self._data).tobytes()
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            self.fp, self._data = io.BytesIO(pixels), b""
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    from bkcodec.codec import encode

    given = {name: image.encoderinfo[name] for name in _OPTIONS if name in image.encoderinfo}
    if "strip" in given:
        strip = given["strip"]
        given["strip"] = frozenset([strip] if isinstance(strip, str) else strip)
    described = image.copy()
    metadata = {k: image.encoderinfo[k] for k in _METADATA if k in image.encoderinfo}
    if isinstance(metadata.get("exif"), Image.Exif):
        metadata["exif"] = metadata["exif"].tobytes()
    described.info.update(metadata)
    fp.write(encode(described, EncodeOptions(**given)))


Image.register_open(_FORMAT, BkcImageFile, _accept)
Image.register_save(_FORMAT, _save)
Image.register_extension(_FORMAT, ".bkc")
Image.register_mime(_FORMAT, "image/x-bkc")
