"""Photos to bytes and back: the one place where the container meets the models."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from bkcodec import machine
from bkcodec.bundle import Bundle, bundle_for, check_fingerprint, find_bundle, load_bundle
from bkcodec.coding.bands import finished
from bkcodec.coding.integers import IntegerCoder, IntegerEncoder
from bkcodec.container import Container, container_from_bytes, read_file
from bkcodec.encoding import Encoded, Encoding
from bkcodec.engine.runtime import Runtime
from bkcodec.errors import FormatError, UsageError, extra
from bkcodec.image.picture import Picture, Rows, image_from_rows
from bkcodec.image.reading import alpha_from_png, picture_from_image
from bkcodec.image.sources import FileSource, PhotoSource, bytes_from, image_from
from bkcodec.inspection import read_symbols
from bkcodec.machine import ADVICE, out_of_memory, pick_device
from bkcodec.options import NO_BACKBONE, Backbone, DecodeOptions, EncodeOptions
from bkcodec.prior.levelmap import Offsets
from bkcodec.tiling import padded_pixels

if TYPE_CHECKING:
    from bkcodec.coding.effort import Tell
    from bkcodec.coding.encoder import Encoder
    from bkcodec.coding.floats import FloatCoder
    from bkcodec.models.compression import BkSdmCompression

OWN_UNET = Backbone(unet="own")
READ, WHOLE = 3, 7  # bytes of a pixel that is read; of a decoded one, as array and as image

_TURN = threading.RLock()


class Codec:
    """A bundle's model, loaded once, for any number of images.

    Args:
        model: name of a bundle or path of a bundle file.
        device: auto, cpu, cuda or mps.
        backbone: where pretrained parts come from, for bundles that need some.

    Raises:
        UnsupportedError: no such bundle, backbone or device.
        UsageError: a backbone for a bundle that needs none.
    """

    def __init__(
        self, model: str | Path = "lite", device: str = "auto", backbone: Backbone = NO_BACKBONE
    ) -> None:
        self._path = find_bundle(str(model))
        self._wish, self._backbone = device, backbone
        self.bundle = load_bundle(self._path)
        self.coder: FloatCoder | IntegerCoder
        if self.bundle.integers and backbone in (NO_BACKBONE, OWN_UNET):
            on = "cpu" if device == "auto" else device
            self.coder = IntegerCoder(_runtime(self.bundle, on), self._floats)
        else:
            self.coder = self._floats()

    @property
    def device(self) -> str:
        """Where the networks run: cpu, cuda or mps."""
        return self.coder.device

    @property
    def model(self) -> BkSdmCompression:
        """The networks in PyTorch, loaded when they are first asked for."""
        return self._floats().model

    @property
    def encoder(self) -> Encoder | IntegerEncoder:
        """The encoder's half."""
        return self.coder.encoder

    def _floats(self) -> FloatCoder:
        with extra("torch", f"bundle {self.bundle.name} in floating point"):
            from bkcodec.coding.assembly import load_model
            from bkcodec.coding.floats import FloatCoder

        device = pick_device(self._wish)
        model, _ = load_model(self._path, str(device), self._backbone)
        return FloatCoder(model, device)

    def encode(self, photo: PhotoSource, options: EncodeOptions | None = None) -> bytes:
        """A photo -> the bytes of a .bkc file.

        Args:
            photo: a Pillow image, the path or the bytes of an image file, or an array; see
                ``image.sources.image_from``.
            options: how.

        Raises:
            TypeError: no photo.
            InputError: pixels that cannot be coded.
            TargetError: a target below the smallest possible file, or above the best.
            LimitError: out of memory, or not enough of it to begin with.
            UsageError: options for another bundle or device than this codec's.
        """
        options = options or EncodeOptions()
        model = None if options.model == EncodeOptions().model else options.model
        _check(self, model, options.device)
        with out_of_memory(ADVICE):
            image = image_from(photo)
        self.check_memory(*image.size, options.tile, beside=READ)
        picture = picture_from_image(image)
        return self.encode_picture(picture, options).data

    def encode_picture(
        self,
        picture: Picture,
        options: EncodeOptions,
        offsets: Offsets | None = None,
        tell: Tell = lambda share, saved: None,
    ) -> Encoded:
        """As ``encode``, from a ``Picture``; see ``check_memory`` for what it needs.

        Args:
            picture: the photo.
            options: how.
            offsets: a level map (see ``prior.levelmap``) instead of the options' regions and map.
                Where a target decides on the level, what leads beyond the scale is at its end.
            tell: see ``coding.effort.Tell``.

        Raises:
            UsageError: a map of another size or beyond the levels.
        """
        return Encoding(self, picture, options, offsets).file(tell)

    def decode(self, file: FileSource, options: DecodeOptions | None = None) -> Image.Image:
        """A .bkc file, by path or as bytes -> a Pillow image with its metadata in ``info``.

        Raises:
            TypeError: neither path nor bytes.
            UsageError: options for another bundle or device than this codec's.
            FormatError: corrupt bytes.
            UnsupportedError: made with another bundle than this codec's, or by a newer version.
            LimitError: too many pixels, out of memory, or not enough of it to begin with.
        """
        options = options or DecodeOptions()
        _check(self, options.model_path, options.device)
        data = bytes_from(file, options.limits)
        container = container_from_bytes(data, options.limits)
        check_fingerprint(self.bundle, container.fingerprint)
        return image_from_rows(self.decode_rows(container, options, whole=True))

    def decode_rows(
        self, container: Container, options: DecodeOptions, whole: bool = False
    ) -> Rows:
        """As ``decode``, from a parsed container that belongs to this codec's bundle, in bands.

        All that can be wrong with a file is found here; taking the bands can only fail for want of
        memory. ``whole``: somebody will have all rows at once, which counts against the memory.
        """
        timestep = container.timestep
        if timestep is not None and timestep >= self.coder.timesteps:
            raise FormatError(f"timestep {timestep} is beyond the bundle's schedule")
        size = (container.width, container.height)
        self.check_memory(*size, options.tile, options.steps, WHOLE if whole else 0)
        alpha = alpha_from_png(container.alpha, size) if container.alpha is not None else None
        with out_of_memory(ADVICE):
            levels, symbols = read_symbols(container, self.bundle)
        seed = container.seed if options.seed is None else options.seed
        colours = self.coder.bands(symbols, levels, size, options, seed, timestep)
        mode = ("L" if container.greyscale else "RGB") + ("" if alpha is None else "A")
        bands = finished(colours, container.greyscale, alpha, self.turn)
        return Rows(*size, mode, bands, container.metadata)

    def check_memory(
        self, width: int, height: int, tile: int | None, steps: int = 0, beside: int = 0
    ) -> None:
        """Refuse a picture that needs more memory than is free.

        Args:
            width: in pixels.
            height: in pixels.
            tile: as in the options.
            steps: denoising steps of a decoder; 0 = for encoding.
            beside: bytes for each pixel of what is kept of the picture, and not there yet.

        Raises:
            LimitError: with the estimate.
        """
        if self.coder.takes_turns:
            return  # what a pretrained part takes is not known
        pixels = padded_pixels(width, height, self.coder.stride)
        symbols = self.coder.n_channels * pixels // self.coder.stride**2
        seen = min(pixels, self.coder.seen_at_once(width, height, tile, steps))
        machine.require(machine.estimate(symbols, seen, steps, beside * width * height))

    def turn(self) -> AbstractContextManager[Any]:
        """Threads that share pretrained parts, which have settings and a place, take turns."""
        return _TURN if self.coder.takes_turns else nullcontext()


def _check(codec: Codec, model: str | None, device: str) -> None:
    """Refuse options that are for another codec (UsageError); they would be ignored."""
    if model is not None and find_bundle(model) != codec.bundle.path:
        raise UsageError(f"this codec has the bundle {codec.bundle.name}, not {model}")
    if device not in ("auto", codec.device):
        raise UsageError(f"this codec runs on {codec.device}, not on {device}")


@lru_cache(maxsize=4)
def _runtime(bundle: Bundle, device: str) -> Runtime:
    return Runtime(bundle.integers, device)


def encode(photo: PhotoSource, options: EncodeOptions | None = None) -> bytes:
    """A photo -> the bytes of a .bkc file; see ``Codec.encode``."""
    options = options or EncodeOptions()
    return Codec(options.model, options.device, options.needed_backbone).encode(photo, options)


def decode(file: FileSource, options: DecodeOptions | None = None) -> Image.Image:
    """A .bkc file, by path or as bytes -> a Pillow image; see ``Codec.decode``."""
    options = options or DecodeOptions()
    container = container_from_bytes(bytes_from(file, options.limits), options.limits)
    rows = codec_for(container, options).decode_rows(container, options, whole=True)
    return image_from_rows(rows)


def encode_to(photo: PhotoSource, fo: BinaryIO, options: EncodeOptions | None = None) -> None:
    """Encode into a binary file object."""
    fo.write(encode(photo, options))


def decode_from(fo: BinaryIO, options: DecodeOptions | None = None) -> Image.Image:
    """Decode from a binary file object, to its end."""
    options = options or DecodeOptions()
    return decode(read_file(fo, options.limits), options)


def codec_for(container: Container, options: DecodeOptions) -> Codec:
    """The codec of the bundle that a file needs.

    Raises:
        UnsupportedError: no such bundle here.
    """
    path = bundle_for(container.fingerprint, options.model_path)
    return Codec(path, options.device, options.backbone)


__all__ = ["Codec", "Encoded", "decode", "decode_from", "encode", "encode_to"]
