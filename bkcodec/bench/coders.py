"""The codecs behind one interface: pixels to the bytes of a file, and bytes to pixels."""

from __future__ import annotations

import io
import struct
from typing import Any, Protocol

from PIL import Image

from bkcodec.bench.codecs import PILLOW, Candidate
from bkcodec.inspection import read_symbols, symbols_sha256

Digest = str | None  # SHA-256 of the symbols, where a codec lets us see them


class Coder(Protocol):
    """What a worker runs."""

    def encode(self, image: Image.Image, quality: float) -> tuple[bytes, Digest]:
        """An RGB picture -> the bytes of a file, and the symbols in it."""

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """The bytes of a file -> an RGB picture."""

    def digest(self, data: bytes) -> Digest:
        """The symbols that a file decodes to."""


def open_coder(candidate: Candidate) -> Coder | Ceiling:
    """Load whatever the codec needs."""
    if candidate.kind == "bundle":
        return BundleCoder(candidate)
    if candidate.kind == "ceiling":
        return Ceiling(candidate)
    return ZooCoder(candidate) if candidate.kind == "zoo" else PillowCoder(candidate)


class BundleCoder:
    """A bundle of ours."""

    def __init__(self, candidate: Candidate) -> None:
        from bkcodec.codec import Codec

        self.codec = Codec(candidate.source, candidate.device)
        self.options: dict[str, Any] = candidate.settings.get("options", {})

    def encode(self, image: Image.Image, quality: float) -> tuple[bytes, Digest]:
        """See ``Coder``."""
        from bkcodec.image.reading import picture_from_image
        from bkcodec.options import EncodeOptions

        options = EncodeOptions(quality=quality, **self.options)
        encoded = self.codec.encode_picture(picture_from_image(image), options)
        return encoded.data, symbols_sha256(encoded.symbols)

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """See ``Coder``; the file says its quality itself."""
        del quality
        return self.codec.decode(data)

    def digest(self, data: bytes) -> Digest:
        """See ``Coder``."""
        from bkcodec.container import container_from_bytes

        _, symbols = read_symbols(container_from_bytes(data), self.codec.bundle)
        return symbols_sha256(symbols)


class Ceiling:
    """The VAE of a bundle without quantisation: what no bit rate of it can exceed."""

    def __init__(self, candidate: Candidate) -> None:
        self.codec = BundleCoder(candidate).codec

    def pass_through(self, image: Image.Image) -> Image.Image:
        """An RGB picture -> encoder -> y -> decoder -> RGB picture, in tiles as ``Codec`` does."""
        import torch

        from bkcodec.tiling import scaled, windows

        model, stride = self.codec.model, self.codec.model.stride
        x = model.pad(image_to_tensor(image))
        out = torch.empty_like(x)
        rows, columns = x.shape[2] // stride, x.shape[3] // stride
        side, reach = model.space.tiles(model, None, image.width, image.height)
        with torch.inference_mode():
            for window in windows(rows, columns, side, 2 * reach):
                part = x[(..., *scaled(window.outer, stride))].to(self.codec.device)
                y = model.vae.encode(part) / model.y_std
                x_hat = model.reconstruct(y, (part.shape[2], part.shape[3])).cpu()
                inner = x_hat[(..., *scaled(window.inner, stride))]
                out[(..., *scaled(window.core, stride))] = inner
        return tensor_to_image(out[..., : image.height, : image.width])


class PillowCoder:
    """A format that Pillow reads and writes."""

    def __init__(self, candidate: Candidate) -> None:
        self.format, self.settings = PILLOW[candidate.source].name, dict(candidate.settings)
        if self.format == "JXL":
            import pillow_jxl  # noqa: F401 (registers the format)
        if self.format == "AVIF" and candidate.threads:
            self.settings["max_threads"] = candidate.threads

    def encode(self, image: Image.Image, quality: float) -> tuple[bytes, Digest]:
        """See ``Coder``; the quality of JPEG 2000 is a rate in bits per pixel."""
        out = io.BytesIO()
        if self.format == "JPEG2000":
            image.save(out, self.format, quality_layers=[24 / quality], **self.settings)
        else:
            image.save(out, self.format, quality=int(quality), **self.settings)
        return out.getvalue(), None

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """See ``Coder``."""
        del quality
        return Image.open(io.BytesIO(data), formats=[self.format]).convert("RGB")

    def digest(self, data: bytes) -> Digest:
        """See ``Coder``; Pillow does not show symbols."""
        del data
        return None


class ZooCoder:
    """A pretrained model of CompressAI; its file is sizes and strings, one after the other.

    Loading means the model of the lowest quality; those of the others come when they are needed.
    """

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self._loaded: tuple[float, Any] = (-1.0, None)
        self.model(candidate.qualities[0])

    def model(self, quality: float) -> Any:
        """The network of one quality; only the last one is kept."""
        from compressai.zoo import image_models

        if self._loaded[0] != quality:
            c = self.candidate
            network = image_models[c.source](
                int(quality), metric=c.settings["metric"], pretrained=True, progress=False
            )
            self._loaded = (quality, network.eval().to(c.device))
        return self._loaded[1]

    def encode(self, image: Image.Image, quality: float) -> tuple[bytes, Digest]:
        """See ``Coder``: width, height, shape of z, and each string with its length."""
        import torch
        import torch.nn.functional as F  # noqa: N812

        x = image_to_tensor(image).to(self.candidate.device)
        x = F.pad(x, (0, -image.width % 64, 0, -image.height % 64), mode="replicate")
        with torch.inference_mode():
            out = self.model(quality).compress(x)
        head = struct.pack("<2I2H", image.width, image.height, *out["shape"])
        strings = [struct.pack("<I", len(s[0])) + s[0] for s in out["strings"]]
        return head + b"".join(strings), None

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """See ``Coder``."""
        import torch

        width, height, *shape = struct.unpack_from("<2I2H", data)
        strings, position = [], struct.calcsize("<2I2H")
        while position < len(data):
            (n,) = struct.unpack_from("<I", data, position)
            strings.append([data[position + 4 : position + 4 + n]])
            position += 4 + n
        with torch.inference_mode():
            out = self.model(quality).decompress(strings, tuple(shape))
        return tensor_to_image(out["x_hat"][..., :height, :width])

    def digest(self, data: bytes) -> Digest:
        """See ``Coder``; not looked at."""
        del data
        return None


def image_to_tensor(image: Image.Image) -> Any:
    """RGB picture -> float32 [1, 3, H, W] in 0..1."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 255


def tensor_to_image(x: Any) -> Image.Image:
    """[1, 3, H, W] about 0..1 -> RGB picture."""
    pixels = x[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels)
