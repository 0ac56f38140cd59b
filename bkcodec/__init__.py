"""bkcodec: a learned image codec with a real file format.

>>> import bkcodec
>>> from PIL import Image
>>> data = bkcodec.encode(Image.new("RGB", (64, 48), "teal"), bkcodec.EncodeOptions(quality=30))
>>> bkcodec.info(data)["width"]
64
>>> bkcodec.decode(data).size
(64, 48)

Photos and files may also be given by path, and photos as NumPy arrays.

Importing the package is cheap; PyTorch is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bkcodec.codec import Codec, decode, decode_from, encode, encode_to
    from bkcodec.coding.assembly import create_bk_sdm_compression_model
    from bkcodec.errors import (
        BkcError,
        FormatError,
        InputError,
        LimitError,
        TargetError,
        UnsupportedError,
        UsageError,
    )
    from bkcodec.inspection import info
    from bkcodec.latents import decode_latents
    from bkcodec.models.compression import BkSdmCompression
    from bkcodec.options import Backbone, DecodeOptions, EncodeOptions, Limits, Region

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "options",
    "BkSdmCompression": "models.compression",
    "BkcError": "errors",
    "Codec": "codec",
    "DecodeOptions": "options",
    "EncodeOptions": "options",
    "FormatError": "errors",
    "InputError": "errors",
    "LimitError": "errors",
    "Limits": "options",
    "Region": "options",
    "TargetError": "errors",
    "UnsupportedError": "errors",
    "UsageError": "errors",
    "create_bk_sdm_compression_model": "coding.assembly",
    "decode": "codec",
    "decode_from": "codec",
    "decode_latents": "latents",
    "encode": "codec",
    "encode_to": "codec",
    "info": "inspection",
}

_NEED_TORCH = ("models.compression", "coding.assembly")

__all__ = [
    "Backbone",
    "BkSdmCompression",
    "BkcError",
    "Codec",
    "DecodeOptions",
    "EncodeOptions",
    "FormatError",
    "InputError",
    "LimitError",
    "Limits",
    "Region",
    "TargetError",
    "UnsupportedError",
    "UsageError",
    "create_bk_sdm_compression_model",
    "decode",
    "decode_from",
    "decode_latents",
    "encode",
    "encode_to",
    "info",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home not in _NEED_TORCH:
        return getattr(import_module(f"bkcodec.{home}"), name)
    from bkcodec.errors import extra

    with extra("torch", name):
        return getattr(import_module(f"bkcodec.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
