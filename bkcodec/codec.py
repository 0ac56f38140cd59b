"""Photos to bytes and back: the one place where the container meets the models."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

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
from bkcodec.container import Container, container_from_bytes, container_to_bytes
from bkcodec.entropy import Symbols
from bkcodec.errors import FormatError, LimitError, UnsupportedError, UsageError
from bkcodec.imageio import (
    Picture,
    alpha_from_png,
    alpha_to_png,
    apply_alpha,
    check_alpha,
    image_from_picture,
    picture_from_image,
)
from bkcodec.models.diffusion import SCHEDULERS, Denoising
from bkcodec.models.refine import refine
from bkcodec.rate import largest_level
from bkcodec.tiling import scaled, tile_cells, windows

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
    """A finished file and what was chosen for it."""

    data: bytes
    level: int
    symbols: Symbols


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

    def encode(self, image: Image.Image, options: EncodeOptions | None = None) -> bytes:
        """A Pillow image -> the bytes of a .bkc file.

        Raises:
            InputError: pixels that cannot be coded.
            TargetError: a target below the smallest possible file.
            UsageError: contradicting options.
            LimitError: out of memory.
        """
        return self.encode_picture(picture_from_image(image), options or EncodeOptions()).data

    def encode_picture(self, picture: Picture, options: EncodeOptions) -> Encoded:
        """As ``encode``, from a ``Picture``."""
        check_encode(options)
        picture = apply_alpha(picture, options.alpha)
        with self._turn:
            y, z = _guard_memory(
                lambda: self._analyse(picture.rgb, options.tile, keep_y=options.effort > 0)
            )
        alpha = alpha_to_png(picture.alpha) if picture.alpha is not None else None
        blocks = {k: getattr(picture, k) for k in ("icc", "exif", "xmp") if k not in options.strip}

        @cache
        def at(level: int, timestep: int | None = None, seed: int = 0) -> Encoded:
            coder = self.bundle.prior.level(level)
            string, symbols = _guard_memory(lambda: coder.encode(self._quantise(z, level)))
            width, height = picture.size
            container = Container(
                self.bundle.fingerprint, width, height, self.model.stride, level,
                string,
                alpha=alpha, greyscale=picture.greyscale, timestep=timestep, seed=seed, **blocks,
            )  # fmt: skip
            return Encoded(container_to_bytes(container), level, symbols)

        def with_hints(encoded: Encoded) -> Encoded:
            if y is None:
                return encoded
            with self._turn:
                hints = _guard_memory(lambda: self._refine(y, encoded, options.effort))
            return at(encoded.level, *hints)

        limit = options.target_size
        if options.target_bpp is not None:
            limit = int(options.target_bpp * picture.size[0] * picture.size[1] / 8)
        if limit is not None:
            limit -= HINT_BYTES if options.effort else 0
            return with_hints(at(largest_level(lambda level: len(at(level).data), limit)[0]))
        quality = DEFAULT_QUALITY if options.quality is None else options.quality
        return with_hints(at(quality_to_level(quality)))

    def decode(self, data: bytes, options: DecodeOptions | None = None) -> Image.Image:
        """The bytes of a .bkc file -> a Pillow image with its metadata in ``info``.

        Raises:
            FormatError: corrupt bytes.
            UnsupportedError: made with another bundle than this codec's, or by a newer version.
            LimitError: too many pixels, or out of memory.
            UsageError: contradicting options.
        """
        options = options or DecodeOptions()
        container = container_from_bytes(data, options.limits)
        if container.fingerprint != self.bundle.fingerprint:
            raise UnsupportedError(
                f"the file needs the bundle {container.fingerprint.hex()}, "
                f"{self.bundle.name} is {self.bundle.fingerprint.hex()}"
            )
        return image_from_picture(self.decode_container(container, options))

    def decode_container(self, container: Container, options: DecodeOptions) -> Picture:
        """As ``decode``, from a parsed container that belongs to this codec's bundle."""
        check_decode(options)
        if container.stride != self.model.stride:
            raise FormatError(f"stride {container.stride}, the bundle's is {self.model.stride}")
        size = (container.width, container.height)
        alpha = alpha_from_png(container.alpha, size) if container.alpha is not None else None
        if (
            container.timestep is not None
            and container.timestep >= self.model.config.train_timesteps
        ):
            raise FormatError(f"timestep {container.timestep} is beyond the bundle's schedule")
        coder = self.bundle.prior.level(container.level)
        symbols = _guard_memory(lambda: coder.decode(container.z, *container.z_shape))
        with self._turn:
            rgb = _guard_memory(lambda: self._synthesise(symbols, container, options))
        if container.greyscale:
            rgb = np.repeat(_luma(rgb)[..., None], 3, axis=2)
        return Picture(
            rgb, alpha, container.greyscale, container.icc, container.exif, container.xmp
        )

    @torch.inference_mode()
    def _analyse(
        self, rgb: NDArray[np.uint8], tile: int | None, keep_y: bool = False
    ) -> tuple[Tensor | None, NDArray[np.float32]]:
        """uint8 [H, W, 3] -> y [1, latent, ., .] if it is to be kept, and z float32 [M, h, w].

        Our networks work in float32 on every device, a pretrained VAE in its file's precision
        where there is a GPU.
        """
        height, width = rgb.shape[:2]
        model, stride = self.model, self.model.stride
        rows, columns = -(-height // stride), -(-width // stride)
        y = None
        if keep_y:
            y = torch.empty(1, model.latent, rows * model.factor, columns * model.factor)
        z = np.empty((model.config.M, rows, columns), np.float32)
        side, reach = self._tiles(tile, width, height)
        with _exact_float32(self.device):
            for window in windows(rows, columns, side, reach):
                pixels = rgb[scaled(window.outer, stride)]
                x = torch.from_numpy(pixels.copy()).to(self.device)
                x = x.permute(2, 0, 1)[None].float().div_(255)  # [1, 3, H, W], channels last
                part_y, part = model.analyse(x)
                if y is not None:
                    inner = part_y[(..., *scaled(window.inner, model.factor))]
                    y[(..., *scaled(window.core, model.factor))] = inner.cpu()
                z[(..., *window.core)] = part[0][(..., *window.inner)].cpu().numpy()
        return y, z

    def _tiles(self, tile: int | None, width: int, height: int) -> tuple[int, int]:
        """Side of our tiles and their overlap, in cells of z; a VAE may make its own instead."""
        side = tile_cells(tile, width, height, self.model.stride)
        reach = self.model.reach
        if reach is not None:
            return side, reach
        self.model.vae.use_tiles(side * self.model.stride)
        return 0, 0

    def _refine(self, y: Tensor, encoded: Encoded, effort: int) -> tuple[int | None, int]:
        quality = torch.full((1,), encoded.level / (LEVELS - 1), device=self.device)
        symbols = torch.from_numpy(encoded.symbols).to(self.device)[None].float()
        return refine(self.model, y.to(self.device) / self.model.y_std, symbols, quality, effort)

    def _quantise(self, z: NDArray[np.float32], level: int) -> NDArray[np.float32]:
        symbols: NDArray[np.float32] = np.rint(z / self._steps()[level][:, None, None])
        return symbols

    def _steps(self) -> NDArray[np.float32]:
        ladder = torch.linspace(0, 1, LEVELS, device=self.device)
        return self.model.quantiser.step(ladder)[:, :, 0, 0].cpu().numpy()

    @torch.inference_mode()
    def _synthesise(
        self, symbols: Symbols, container: Container, options: DecodeOptions
    ) -> NDArray[np.uint8]:
        """Symbols int16 [M, h, w] -> uint8 [H, W, 3]."""
        level = torch.full((1,), container.level / (LEVELS - 1), device=self.device)
        seed = container.seed if options.seed is None else options.seed
        how = Denoising(options.steps, options.scheduler, seed, options.realism, container.timestep)
        y_hat = self.model.sample(
            torch.from_numpy(symbols).to(self.device)[None].float(), level, how
        )
        rows, columns = container.z_shape
        stride, width, height = container.stride, container.width, container.height
        rgb = np.empty((rows * stride, columns * stride, 3), np.uint8)
        side, reach = self._tiles(options.tile, width, height)
        texture = options.realism if options.steps > 1 else 0.0
        for window in windows(rows, columns, side, reach):
            part = y_hat[(..., *scaled(window.outer, self.model.factor))]
            size = tuple(n * self.model.vae.stride for n in part.shape[2:])
            x_hat = self.model.reconstruct(part, size, texture)
            pixels = x_hat[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)
            rgb[scaled(window.core, stride)] = pixels[scaled(window.inner, stride)].cpu().numpy()
        return np.ascontiguousarray(rgb[:height, :width])


def encode(image: Image.Image, options: EncodeOptions | None = None) -> bytes:
    """A Pillow image -> the bytes of a .bkc file; see ``Codec.encode``."""
    options = options or EncodeOptions()
    return Codec(options.model, options.device, options.needed_backbone).encode(image, options)


def decode(data: bytes, options: DecodeOptions | None = None) -> Image.Image:
    """The bytes of a .bkc file -> a Pillow image; see ``Codec.decode``."""
    options = options or DecodeOptions()
    container = container_from_bytes(data, options.limits)
    codec = codec_for(container, options)
    return image_from_picture(codec.decode_container(container, options))


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


def _luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def _exact_float32(device: torch.device) -> AbstractContextManager[None]:
    """No TF32 convolutions on CUDA: its 10-bit mantissa would make symbols wobble."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


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
