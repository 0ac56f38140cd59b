"""Photos to bytes and back: the one place where the container meets the models."""

from __future__ import annotations

import math
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from bkcodec import machine
from bkcodec.bundle import Bundle, bundle_for, check_fingerprint, find_bundle, load_bundle
from bkcodec.coding.adapt import own_offsets
from bkcodec.coding.bands import finished
from bkcodec.coding.integers import IntegerCoder, IntegerEncoder
from bkcodec.coding.regions import added, mapped, offsets_of
from bkcodec.coding.search import largest, smallest
from bkcodec.container import (
    Container,
    container_from_bytes,
    container_to_bytes,
    extra_bytes,
    read_file,
)
from bkcodec.engine.runtime import Runtime
from bkcodec.errors import FormatError, UsageError, extra
from bkcodec.image.exif import thumbnail_bytes
from bkcodec.image.metadata import stripped
from bkcodec.image.picture import Picture, Pixels, Rows, apply_alpha, image_from_rows, reduced
from bkcodec.image.reading import alpha_from_png, picture_from_image
from bkcodec.image.sources import FileSource, PhotoSource, bytes_from, image_from
from bkcodec.image.writing import alpha_to_png
from bkcodec.inspection import read_symbols
from bkcodec.machine import ADVICE, out_of_memory, pick_device
from bkcodec.options import NO_BACKBONE, Backbone, DecodeOptions, EncodeOptions
from bkcodec.prior.levelmap import Levels, Offsets
from bkcodec.prior.tables import Symbols
from bkcodec.tiling import padded_pixels

if TYPE_CHECKING:
    from bkcodec.coding.encoder import Encoder
    from bkcodec.coding.floats import FloatCoder
    from bkcodec.models.compression import BkSdmCompression

OWN_UNET = Backbone(unet="own")
SHARE = 10  # a preview may have one byte for so many of the picture
READ, WHOLE = 3, 7  # bytes of a pixel that is read; of a decoded one, as array and as image
HINT_BYTES = 7  # of the section with timestep and seed, at most

_TURN = threading.RLock()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A finished file, its parts, the symbols in it, and what a metric's target was met with."""

    data: bytes
    container: Container
    symbols: Symbols
    reached: float | None = None

    def __len__(self) -> int:
        return len(self.data)


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
        self._check_options(model, options.device)
        image = image_from(photo)
        self.check_memory(*image.size, options.tile, beside=READ)
        picture = picture_from_image(image)
        return self.encode_picture(picture, options).data

    def encode_picture(
        self, picture: Picture, options: EncodeOptions, offsets: Offsets | None = None
    ) -> Encoded:
        """As ``encode``, from a ``Picture``; see ``check_memory`` for what it needs.

        Args:
            picture: the photo.
            options: how.
            offsets: a level map (see ``prior.levelmap``) instead of the options' regions and map.
                Where a target decides on the level, what leads beyond the scale is at its end.

        Raises:
            UsageError: a map of another size or beyond the levels, or one with an effort.
        """
        deadline = math.inf if options.timeout is None else time.monotonic() + options.timeout
        marked = picture.size
        picture = apply_alpha(reduced(picture, options.max_side), options.alpha)
        offsets = offsets_of(options, marked, picture.size, self.coder.stride, offsets)
        with self._turn(), out_of_memory(ADVICE):
            y, z = self.encoder.analyse(picture.rgb, options.tile, keep_y=options.effort > 0)
        if options.adapt:
            decode = partial(_trial, self, z, picture, options.tile)
            offsets = added(offsets, own_offsets(picture.rgb, self.coder.stride, decode))
        frame = self._frame(picture, options)
        if options.has_target:
            encoded = self._searched(z, frame, offsets, picture, options, deadline)
        else:
            symbols, levels, frame = _quantised(self.encoder, z, options.level, offsets, frame)
            del z  # large for huge pictures
            encoded = self._pack(symbols, levels, frame, options)
        if y is None:
            return encoded
        with self._turn(), out_of_memory(ADVICE):
            timestep, seed = self.coder.hints(
                y,
                encoded.symbols,
                encoded.container.level,
                picture.size,
                options.tile,
                options.effort,
                deadline,
            )
        container = replace(encoded.container, timestep=timestep, seed=seed)
        return Encoded(container_to_bytes(container), container, encoded.symbols)

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
        self._check_options(options.model_path, options.device)
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
        bands = finished(colours, container.greyscale, alpha, self._turn)
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

    def _check_options(self, model: str | None, device: str) -> None:
        """Refuse options that are for another codec (UsageError); they would be ignored."""
        if model is not None and find_bundle(model) != self._path:
            raise UsageError(f"this codec has the bundle {self.bundle.name}, not {model}")
        if device not in ("auto", self.device):
            raise UsageError(f"this codec runs on {self.device}, not on {device}")

    def _turn(self) -> AbstractContextManager[Any]:
        """Threads that share pretrained parts, which have settings and a place, take turns."""
        return _TURN if self.coder.takes_turns else nullcontext()

    def _frame(self, picture: Picture, options: EncodeOptions) -> Container:
        """All of the file but its symbols."""
        width, height = picture.size
        return Container(
            self.bundle.fingerprint,
            width,
            height,
            self.coder.stride,
            options.level,
            b"",
            alpha=alpha_to_png(picture.alpha) if picture.alpha is not None else None,
            metadata=stripped(picture.metadata, options.strip),
            greyscale=picture.greyscale,
        )

    def _searched(
        self,
        z: Any,
        frame: Container,
        offsets: Offsets | None,
        picture: Picture,
        options: EncodeOptions,
        deadline: float,
    ) -> Encoded:
        """The best file of at most so many bytes, or the smallest that reaches a metric's value."""
        limit, target = options.largest_file(*picture.size), options.metric_target
        if limit is not None:
            frame, reserve = _with_small_thumbnail(frame, options, limit), HINT_BYTES
            return largest(
                lambda level: self._pack(*_quantised(self.encoder, z, level, offsets, frame)),
                limit,
                deadline,
                reserve if options.effort else 0,
                extra_bytes(frame),
            )
        assert target is not None
        original = picture.rgb[..., :1] if picture.greyscale else picture.rgb

        def probe(level: int) -> tuple[Encoded, float]:
            encoded = self._pack(*_quantised(self.encoder, z, level, offsets, frame), options)
            container = replace(encoded.container, alpha=None)
            rows = self.decode_rows(container, DecodeOptions(tile=options.tile), whole=True)
            return encoded, target.metric.measure(original, rows.whole())

        encoded, value = smallest(probe, target, deadline)
        return replace(encoded, reached=value)

    def _pack(
        self,
        symbols: Symbols,
        levels: int | Levels,
        frame: Container,
        options: EncodeOptions | None = None,
    ) -> Encoded:
        """The file of these symbols, or of what the prior can say of them."""
        with out_of_memory(ADVICE):
            string, coded = self.bundle.prior.at(levels).encode(symbols)
        container = replace(frame, z=string)
        if options is not None:
            container = _with_small_thumbnail(container, options, len(string))
        return Encoded(container_to_bytes(container), container, coded)


def _trial(
    codec: Codec, z: Any, picture: Picture, tile: int | None, level: int
) -> tuple[Symbols, Pixels]:
    """Symbols at a level, and the colours that they decode to."""
    symbols, way = codec.encoder.quantise(z, level), DecodeOptions(tile=tile)
    colours = codec.coder.bands(symbols, level, picture.size, way, 0, None)
    bands = finished(colours, False, None, codec._turn)
    return symbols, Rows(*picture.size, "RGB", bands, picture.metadata).whole()


def _quantised(
    encoder: Encoder | IntegerEncoder, z: Any, level: int, offsets: Offsets | None, frame: Container
) -> tuple[Symbols, int | Levels, Container]:
    """Symbols at a level, the levels of their cells, and the frame that says both."""
    levels, level_map = mapped(level, offsets, z.shape[1:])
    symbols = encoder.quantise(z, levels)
    return symbols, levels, replace(frame, level=level, level_map=level_map)


def _with_small_thumbnail(container: Container, options: EncodeOptions, n_bytes: int) -> Container:
    """Without EXIF's preview, where that is larger than a tenth of so many bytes."""
    exif = container.metadata.exif
    if options.keep_thumbnail or not exif or SHARE * thumbnail_bytes(exif) <= n_bytes:
        return container
    return replace(container, metadata=stripped(container.metadata, {"thumbnail"}))


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
