"""Photos to bytes and back: the one place where the container meets the models."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from bkcodec import machine
from bkcodec.bundle import Bundle, bundle_for, check_fingerprint, find_bundle, load_bundle
from bkcodec.coding.integers import IntegerCoder, IntegerEncoder
from bkcodec.coding.search import largest
from bkcodec.container import (
    Container,
    container_from_bytes,
    container_to_bytes,
    extra_bytes,
    read_file,
)
from bkcodec.engine.runtime import Runtime
from bkcodec.errors import FormatError, TargetError, UsageError, extra, failures
from bkcodec.image.exif import thumbnail_bytes
from bkcodec.image.metadata import stripped
from bkcodec.image.picture import Picture, Pixels, Rows, apply_alpha, image_from_rows, reduced
from bkcodec.image.reading import alpha_from_png, picture_from_image
from bkcodec.image.sources import FileSource, PhotoSource, bytes_from, image_from
from bkcodec.image.writing import alpha_to_png
from bkcodec.inspection import read_symbols
from bkcodec.machine import out_of_memory, pick_device
from bkcodec.options import NO_BACKBONE, TUNES, Backbone, DecodeOptions, EncodeOptions
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.levelmap import Levels, Offsets, cell_levels, write_map
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
ADVICE = (
    "A smaller --tile needs less; with a backbone also a tiny VAE (--vae), --unet own, or "
    "--device cpu."
)

_TURN = threading.RLock()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A finished file, its parts, and the symbols in it."""

    data: bytes
    container: Container
    symbols: Symbols

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
            TargetError: a target below the smallest possible file.
            LimitError: out of memory, or not enough of it to begin with.
            UsageError: options for another bundle or device than this codec's.
        """
        options = options or EncodeOptions()
        model = None if options.model == EncodeOptions().model else options.model
        _check(self, model, options.device)
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
            offsets: a level map (see ``prior.levelmap``) for a file of a given quality.

        Raises:
            UsageError: a map of another size or beyond the levels, or one with a target or an
                effort.
        """
        deadline = math.inf if options.timeout is None else time.monotonic() + options.timeout
        picture = apply_alpha(reduced(picture, options.max_side), options.alpha)
        levels = _levels(picture, options, offsets, self.coder.stride)
        with self._turn(), out_of_memory(ADVICE):
            wants_y = options.effort > 0 and not self._searches
            y, z = self.encoder.analyse(picture.rgb, options.tile, keep_y=wants_y)
        frame = self._frame(picture, options, offsets)
        limit = options.largest_file(*picture.size)
        if limit is not None:
            frame = _with_small_thumbnail(frame, options, limit)
            encoded = self._largest(z, frame, limit, deadline, HINT_BYTES if wants_y else 0)
        else:
            symbols = self.encoder.quantise(z, levels)
            if not options.effort:
                del z  # large for huge pictures
            encoded = self._pack(symbols, levels, frame, options)
        if options.effort and self._searches:
            return self._improved(encoded, picture, z, levels, frame, options, deadline)
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
        bands = self._bands(colours, container.greyscale, alpha)
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

    @property
    def _searches(self) -> bool:
        """Whether an effort is a search with gradients."""
        return isinstance(self.coder, IntegerCoder)

    def _improved(
        self,
        plain: Encoded,
        picture: Picture,
        z: Any,
        levels: int | Levels,
        frame: Container,
        options: EncodeOptions,
        deadline: float,
    ) -> Encoded:
        """What an effort makes of a plain file."""
        coder = self.coder
        assert isinstance(coder, IntegerCoder)
        with extra("torch", "--effort"):
            from bkcodec.coding.effort import Effort, Photo
            from bkcodec.coding.latent import LatentSearch

        prior = self.bundle.prior
        assert isinstance(prior, ContextPrior)
        search = LatentSearch(self.model, prior)

        def code(symbols: Symbols, at: int | Levels) -> Encoded:
            level = at if isinstance(at, int) else frame.level
            return self._pack(symbols, at, replace(frame, level=level), options)

        def show(file: Encoded, at: int | Levels) -> Pixels:
            bands = coder.bands(file.symbols, at, picture.size, DecodeOptions(), 0, None)
            return np.concatenate(list(bands))

        photo = Photo(picture.rgb, lambda at: coder.encoder.scaled(z, at), code, len, show)
        effort = Effort(search, photo, TUNES[options.tune], options.effort, deadline)
        with out_of_memory(ADVICE):
            limit = options.largest_file(*picture.size)
            if limit is None:
                return effort.at_quality(plain, levels)
            return effort.at_size(plain, plain.container.level, limit)

    def _turn(self) -> AbstractContextManager[Any]:
        """Threads that share pretrained parts, which have settings and a place, take turns."""
        return _TURN if self.coder.takes_turns else nullcontext()

    def _frame(
        self, picture: Picture, options: EncodeOptions, offsets: Offsets | None
    ) -> Container:
        """All of the file but its symbols."""
        width, height = picture.size
        return Container(
            self.bundle.fingerprint,
            width,
            height,
            self.coder.stride,
            options.level,
            b"",
            level_map=write_map(offsets) if offsets is not None and offsets.any() else None,
            alpha=alpha_to_png(picture.alpha) if picture.alpha is not None else None,
            metadata=stripped(picture.metadata, options.strip),
            greyscale=picture.greyscale,
        )

    def _largest(
        self, z: Any, frame: Container, limit: int, deadline: float, reserve: int
    ) -> Encoded:
        """The best file of at most so many bytes; see ``largest``."""

        def coded(level: int) -> Encoded:
            return self._pack(self.encoder.quantise(z, level), level, replace(frame, level=level))

        try:
            return largest(coded, limit, deadline, reserve)
        except TargetError as error:
            parts = [f"{name} {n:,} bytes" for name, n in extra_bytes(frame).items()]
            if not parts:
                raise
            raise TargetError(
                f"{error}, of which {', '.join(parts)}; --strip and --alpha drop leave these out"
            ) from error

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

    def _bands(
        self, colours: Iterator[Pixels], greyscale: bool, alpha: Pixels | None
    ) -> Iterator[Pixels]:
        """Bands of RGB made grey where the photo was, with their part of the alpha plane."""
        top = 0
        while True:
            # for the work, not for what a caller does meanwhile
            with self._turn(), out_of_memory(ADVICE), failures("decoding"):
                band = next(colours, None)
            if band is None:
                return
            if greyscale:
                band = np.asarray(Image.fromarray(band).convert("L"))[..., None]
            if alpha is not None:
                band = np.dstack([band, alpha[top : top + len(band)]])
            top += len(band)
            yield band


def _check(codec: Codec, model: str | None, device: str) -> None:
    """Refuse options that are for another codec (UsageError); they would be ignored."""
    if model is not None and find_bundle(model) != codec.bundle.path:
        raise UsageError(f"this codec has the bundle {codec.bundle.name}, not {model}")
    if device not in ("auto", codec.device):
        raise UsageError(f"this codec runs on {codec.device}, not on {device}")


def _levels(
    picture: Picture, options: EncodeOptions, offsets: Offsets | None, stride: int
) -> int | Levels:
    """The level of all cells, or that of each."""
    if offsets is None:
        return options.level
    if options.effort or options.has_target:
        raise UsageError("a level map goes with a quality, not with targets or an effort")
    rows, columns = (-(-n // stride) for n in reversed(picture.size))
    return cell_levels(options.level, offsets, rows, columns)


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
