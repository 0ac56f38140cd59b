"""WebDataset: members called .bkc become images, like those that it decodes by itself.

>>> import webdataset as wds
>>> from bkcodec.integrations.webdataset import decoder
>>> photos = wds.WebDataset("photos-{000..099}.tar").decode(decoder("torchrgb8"), "torchrgb8")
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from bkcodec.codec import decode
from bkcodec.errors import extra
from bkcodec.options import DecodeOptions

with extra("webdataset", "bkcodec.integrations.webdataset"):
    from webdataset.autodecode import ImageHandler


@dataclass(frozen=True)
class Decoder:
    """What ``WebDataset.decode`` calls with each member's extension and bytes; see ``decoder``."""

    handler: Any
    options: DecodeOptions | None

    def __call__(self, key: str, data: bytes) -> Any:
        """The image of a .bkc member; None for others, which are left to other handlers."""
        if not key.lower().endswith(".bkc"):
            return None
        file = io.BytesIO()
        decode(data, self.options).save(file, "TIFF")
        return self.handler(".tiff", file.getvalue())


def decoder(imagespec: str = "rgb8", options: DecodeOptions | None = None) -> Decoder:
    """A handler for ``WebDataset.decode``; it can be pickled.

    Args:
        imagespec: what images become, in WebDataset's words: pil, rgb8 (uint8 [H, W, 3]), rgb
            (float32 in 0..1), torchrgb8 (a tensor [3, H, W]), and so on.
        options: as for ``bkcodec.decode``.

    Raises:
        ValueError: a word that WebDataset does not know.
    """
    return Decoder(ImageHandler(imagespec, extensions=["tiff"]), options)
