"""Photos to bytes and back: the one place where the container meets the models."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bkcodec import memory
from bkcodec.analysis import Analyser
from bkcodec.backbone import load_model, pick_device
from bkcodec.bundle import find_bundle, find_fingerprint, load_bundle
from bkcodec.config import (
    DEFAULT_QUALITY,
    LEVELS,
    NO_BACKBONE,
    Backbone,
    DecodeOptions,
    EncodeOptions,
    quality_to_level,
)
from bkcodec.container import (
    Container,
    container_from_bytes,
    container_to_bytes,
    padded_pixels,
)
from bkcodec.entropy import Symbols
from bkcodec.errors import FormatError, LimitError, UnsupportedError, UsageError
from bkcodec.imageio import (
    Picture,
    alpha_from_png,
    alpha_to_png,
    apply_alpha,
    check_alpha,
    image_from_rows,
    picture_from_image,
)
from bkcodec.levelmap import Levels, Offsets, cell_levels, levels_of, write_map
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.diffusion import SCHEDULERS
from bkcodec.models.refine import Search, refine
from bkcodec.rate import largest_level
from bkcodec.streaming import Pixels, Rows
from bkcodec.synthesis import picture_bands
from bkcodec.tiling import tile_cells

MAX_STEPS, MAX_EFFORT = 50, 2
HINT_BYTES = 7  # of the section with timestep and seed, at most
OUT_OF_MEMORY = (
    "out of memory. A smaller --tile needs less; with a backbone also a tiny VAE (--vae), "
    "--unet own, or --device cpu."
)

_TURN = threading.RLock()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A finished file and the symbols in it."""

    container: Container
    symbols: Symbols

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return container_to_bytes(self.container)

    @property
    def level(self) -> int:
        """Its quality level."""
        return self.container.level


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
        self.device = pick_device(device)
        self.model, self.bundle = load_model(find_bundle(str(model)), str(self.device), backbone)

    @property
    def _turn(self) -> AbstractContextManager[Any]:
        """Threads that share pretrained parts, which have settings and a place, take turns."""
        return _TURN if self.model.config.space == "sd" else nullcontext()

    @property
    def analyser(self) -> Analyser:
        """The encoder's half."""
        return _analyser(self.model, self.device)

    def encode(self, image: Image.Image, options: EncodeOptions | None = None) -> bytes:
        """A Pillow image -> the bytes of a .bkc file.

        Raises:
            InputError: pixels that cannot be coded.
            TargetError: a target below the smallest possible file.
            UsageError: contradicting options.
            LimitError: out of memory, or not enough of it to begin with.
        """
        return self.encode_picture(picture_from_image(image), options or EncodeOptions()).data

    def encode_picture(
        self, picture: Picture, options: EncodeOptions, offsets: Offsets | None = None
    ) -> Encoded:
        """As ``encode``, from a ``Picture``.

        ``offsets`` is a level map (see ``levelmap``) for a file of a given quality.

        Raises:
            UsageError: also a map of another size or beyond the levels, or one with a target or an
                effort.
        """
        check_encode(options)
        level = quality_to_level(DEFAULT_QUALITY if options.quality is None else options.quality)
        levels: int | Levels = level
        if offsets is not None:
            if options.effort or (options.target_bpp, options.target_size) != (None, None):
                raise UsageError("a level map goes with a quality, not with targets or an effort")
            rows, columns = (-(-n // self.model.stride) for n in reversed(picture.size))
            levels = cell_levels(level, offsets, rows, columns)
        self.check_memory(*picture.size, options.tile, has_pixels=True)
        deadline = math.inf if options.timeout is None else time.monotonic() + options.timeout
        picture = apply_alpha(picture, options.alpha)
        with self._turn:
            y, z = _guard_memory(
                lambda: self.analyser.analyse(picture.rgb, options.tile, options.effort > 0)
            )
        width, height = picture.size
        alpha = alpha_to_png(picture.alpha) if picture.alpha is not None else None
        blocks = {k: getattr(picture, k) for k in ("icc", "exif", "xmp") if k not in options.strip}

        level_map = write_map(offsets) if offsets is not None and offsets.any() else None

        def code(wanted: Symbols, level: int, levels: int | Levels) -> Encoded:
            coder = self.bundle.prior.at(levels)
            string, symbols = _guard_memory(lambda: coder.encode(wanted))
            container = Container(
                self.bundle.fingerprint, width, height, self.model.stride, level, string,
                level_map=level_map, alpha=alpha,
                greyscale=picture.greyscale, **blocks,
            )  # fmt: skip
            return Encoded(container, symbols)

        limit = options.target_size
        if options.target_bpp is not None:
            limit = int(options.target_bpp * width * height / 8)
        if limit is not None:
            limit -= HINT_BYTES if options.effort else 0
            quantise = self.analyser.quantise
            encoded = _largest(lambda i: code(quantise(z, i), i, i), limit, deadline)
        else:
            wanted = self.analyser.quantise(z, levels)
            del z  # large for huge pictures
            encoded = code(wanted, level, levels)
        if y is None:
            return encoded
        with self._turn:
            timestep, seed = _guard_memory(lambda: self._refine(y, encoded, options, deadline))
        hinted = replace(encoded.container, timestep=timestep, seed=seed)
        return Encoded(hinted, encoded.symbols)

    def decode(self, data: bytes, options: DecodeOptions | None = None) -> Image.Image:
        """The bytes of a .bkc file -> a Pillow image with its metadata in ``info``.

        Raises:
            FormatError: corrupt bytes.
            UnsupportedError: made with another bundle than this codec's, or by a newer version.
            LimitError: too many pixels, out of memory, or not enough of it to begin with.
            UsageError: contradicting options.
        """
        options = options or DecodeOptions()
        container = container_from_bytes(data, options.limits)
        if container.fingerprint != self.bundle.fingerprint:
            raise UnsupportedError(
                f"the file needs the bundle {container.fingerprint.hex()}, "
                f"{self.bundle.name} is {self.bundle.fingerprint.hex()}"
            )
        return image_from_rows(self.decode_rows(container, options))

    def decode_rows(self, container: Container, options: DecodeOptions) -> Rows:
        """As ``decode``, from a parsed container that belongs to this codec's bundle, in bands.

        All that can be wrong with a file is found here; taking the bands can only fail for want of
        memory.
        """
        check_decode(options)
        if container.stride != self.model.stride:
            raise FormatError(f"stride {container.stride}, the bundle's is {self.model.stride}")
        timestep = container.timestep
        if timestep is not None and timestep >= self.model.config.train_timesteps:
            raise FormatError(f"timestep {timestep} is beyond the bundle's schedule")
        size = (container.width, container.height)
        self.check_memory(*size, options.tile, options.steps)
        alpha = alpha_from_png(container.alpha, size) if container.alpha is not None else None
        levels = levels_of(container)
        coder = self.bundle.prior.at(levels)
        symbols = _guard_memory(lambda: coder.decode(container.z, *container.z_shape))
        mode = ("L" if container.greyscale else "RGB") + ("" if alpha is None else "A")
        bands = self._bands(symbols, levels, alpha, container, options)
        return Rows(*size, mode, bands, container.icc, container.exif, container.xmp)

    def _bands(
        self, symbols: Symbols, levels: int | Levels, alpha: Pixels | None, container: Container,
        options: DecodeOptions,
    ) -> Iterator[Pixels]:  # fmt: skip
        top = 0
        with self._turn:
            bands = picture_bands(self.model, self.device, symbols, levels, container, options)
            while (band := _guard_memory(lambda: next(bands, None))) is not None:
                if container.greyscale:
                    band = np.asarray(Image.fromarray(band).convert("L"))[..., None]
                if alpha is not None:
                    band = np.dstack([band, alpha[top : top + len(band)]])
                top += len(band)
                yield band

    def _refine(
        self, y: Tensor, encoded: Encoded, options: EncodeOptions, deadline: float
    ) -> tuple[int | None, int]:
        container, model = encoded.container, self.model
        quality = torch.full((1,), encoded.level / (LEVELS - 1), device=self.device)
        symbols = torch.from_numpy(encoded.symbols).to(self.device)[None].float()
        tile = tile_cells(options.tile, container.width, container.height, model.stride)
        search = Search(model, y.to(self.device) / model.y_std, symbols, quality,
                        tile * model.factor, deadline)  # fmt: skip
        return refine(search, options.effort)

    def check_memory(
        self, width: int, height: int, tile: int | None, steps: int = 0, has_pixels: bool = False
    ) -> None:
        """Refuse a picture that needs more memory than is free.

        Args:
            width: in pixels.
            height: in pixels.
            tile: as in the options.
            steps: denoising steps of a decoder; 0 = for encoding.
            has_pixels: whether the pixels are in memory already.

        Raises:
            LimitError: with the estimate.
        """
        model, stride = self.model, self.model.stride
        if model.config.space != "own":
            return  # what a pretrained part takes is not known
        side = tile_cells(tile, width, height, stride)
        pixels = padded_pixels(width, height, stride)
        symbols = model.config.M * pixels // stride**2
        memory.require(memory.estimate(symbols, pixels, (side * stride) ** 2, steps, has_pixels))


@lru_cache(maxsize=4)
def _analyser(model: BkSdmCompression, device: torch.device) -> Analyser:
    return Analyser(model, device)


def _largest(code: Callable[[int], Encoded], limit: int, deadline: float) -> Encoded:
    """The encoding of the highest level that is not above ``limit`` bytes."""
    best: list[Encoded] = []  # not more than one: symbols of huge pictures are large

    def size_of(level: int) -> int:
        encoded = code(level)
        size = len(encoded.data)
        if size <= limit and not (best and best[0].level > level):
            best[:] = [encoded]
        return size

    level, _ = largest_level(size_of, limit, deadline)
    (found,) = best
    assert found.level == level
    return found


def encode(image: Image.Image, options: EncodeOptions | None = None) -> bytes:
    """A Pillow image -> the bytes of a .bkc file; see ``Codec.encode``."""
    options = options or EncodeOptions()
    return Codec(options.model, options.device, options.needed_backbone).encode(image, options)


def decode(data: bytes, options: DecodeOptions | None = None) -> Image.Image:
    """The bytes of a .bkc file -> a Pillow image; see ``Codec.decode``."""
    options = options or DecodeOptions()
    container = container_from_bytes(data, options.limits)
    codec = codec_for(container, options)
    return image_from_rows(codec.decode_rows(container, options))


def encode_to(image: Image.Image, fo: BinaryIO, options: EncodeOptions | None = None) -> None:
    """Encode into a binary file object."""
    fo.write(encode(image, options))


def decode_from(fo: BinaryIO, options: DecodeOptions | None = None) -> Image.Image:
    """Decode from a binary file object, to its end."""
    options = options or DecodeOptions()
    return decode(fo.read(options.limits.max_file_bytes + 1), options)


def codec_for(container: Container, options: DecodeOptions) -> Codec:
    """The codec of the bundle that a file names by its fingerprint.

    Raises:
        UnsupportedError: no such bundle here.
    """
    path = options.model_path
    if path is not None:
        wanted, found = container.fingerprint, load_bundle(find_bundle(path)).fingerprint
        if found != wanted:
            raise UnsupportedError(
                f"the file needs the bundle {wanted.hex()}, {path} is {found.hex()}"
            )
        return Codec(path, options.device, options.backbone)
    return Codec(find_fingerprint(container.fingerprint), options.device, options.backbone)


def _guard_memory(work: Callable[[], T]) -> T:
    """Run ``work``; running out of memory becomes a LimitError that says what helps."""
    try:
        return work()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise LimitError(OUT_OF_MEMORY) from error
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        raise LimitError(OUT_OF_MEMORY) from error


def check_encode(options: EncodeOptions) -> None:
    """Refuse options that contradict each other (UsageError)."""
    wishes = (options.quality, options.target_bpp, options.target_size)
    if sum(wish is not None for wish in wishes) > 1:
        raise UsageError("quality, target_bpp and target_size exclude each other")
    if options.quality is not None and not 0 <= options.quality <= 100:
        raise UsageError(f"quality {options.quality}: not in 0..100")
    for name in ("target_bpp", "target_size"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} {value}: must be above 0 and finite")
    if not 0 <= options.effort <= MAX_EFFORT:
        raise UsageError(f"effort {options.effort}: not in 0..{MAX_EFFORT}")
    if options.timeout is not None and not options.timeout >= 0:
        raise UsageError(f"timeout {options.timeout}: must be a number of seconds, 0 or more")
    check_alpha(options.alpha)
    unknown = options.strip - {"icc", "exif", "xmp"}
    if unknown:
        raise UsageError(f"strip {', '.join(sorted(unknown))}: not icc, exif or xmp")


def check_decode(options: DecodeOptions) -> None:
    """Refuse options out of range (UsageError)."""
    if not 1 <= options.steps <= MAX_STEPS:
        raise UsageError(f"steps {options.steps}: not in 1..{MAX_STEPS}")
    if options.scheduler not in SCHEDULERS:
        raise UsageError(f"scheduler {options.scheduler!r}: not one of {', '.join(SCHEDULERS)}")
    if not 0 <= options.realism <= 1:
        raise UsageError(f"realism {options.realism}: not in 0..1")
    if options.seed is not None and not 0 <= options.seed < 2**31:
        raise UsageError(f"seed {options.seed}: not in 0..2^31 - 1")


__all__ = ["Codec", "Encoded", "decode", "decode_from", "encode", "encode_to"]
