"""The codecs behind one interface: pixels to the bytes of a file, and bytes to pixels."""

from __future__ import annotations

import hashlib
import io
import struct
from typing import Any, Protocol

from PIL import Image

from bkcodec.bench.candidates import Candidate

Digest = str | None  # SHA-256 of the symbols, where a codec lets us see them


class Coder(Protocol):
    """What a worker runs."""

    def encode(self, image: Image.Image, quality: float) -> bytes:
        """An RGB picture -> the bytes of a file."""

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """The bytes of a file -> an RGB picture."""

    def digest(self, data: bytes, image: Image.Image | None, quality: float) -> Digest:
        """Of the symbols: as the encoder chose them for ``image``, or as decoded without it."""


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

    def encode(self, image: Image.Image, quality: float) -> bytes:
        """See ``Coder``."""
        return self.codec.encode(image, self._options(quality))

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """See ``Coder``; the file says its quality itself."""
        del quality
        return self.codec.decode(data)

    def digest(self, data: bytes, image: Image.Image | None, quality: float) -> Digest:
        """See ``Coder``."""
        from bkcodec.container import container_from_bytes
        from bkcodec.imageio import picture_from_image

        if image is not None:
            picture = picture_from_image(image)
            symbols = self.codec.encode_picture(picture, self._options(quality)).symbols
        else:
            container = container_from_bytes(data)
            coder = self.codec.bundle.prior.level(container.level)
            symbols = coder.decode(container.z, *container.z_shape)
        return hashlib.sha256(symbols.astype("<i2").tobytes()).hexdigest()

    def _options(self, quality: float) -> Any:
        from bkcodec.config import EncodeOptions

        return EncodeOptions(quality=quality)


class Ceiling:
    """The VAE of a bundle without quantisation: what no bit rate of it can exceed."""

    def __init__(self, candidate: Candidate) -> None:
        self.codec = BundleCoder(candidate).codec

    def pass_through(self, image: Image.Image) -> Image.Image:
        """An RGB picture -> encoder -> y -> decoder -> RGB picture."""
        import torch

        model = self.codec.model
        with torch.inference_mode():
            x = image_to_tensor(image).to(self.codec.device)
            y, _ = model.analyse(x)
            x_hat = model.reconstruct(y / model.y_std, (image.height, image.width))
        return tensor_to_image(x_hat)


class PillowCoder:
    """A format that Pillow reads and writes."""

    def __init__(self, candidate: Candidate) -> None:
        if candidate.source == "JXL":
            import pillow_jxl  # noqa: F401 (registers the format)
        self.format, self.settings = candidate.source, candidate.settings

    def encode(self, image: Image.Image, quality: float) -> bytes:
        """See ``Coder``; the quality of JPEG 2000 is a rate in bits a pixel."""
        out = io.BytesIO()
        if self.format == "JPEG2000":
            image.save(out, self.format, quality_layers=[24 / quality], **self.settings)
        else:
            image.save(out, self.format, quality=int(quality), **self.settings)
        return out.getvalue()

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """See ``Coder``."""
        del quality
        return Image.open(io.BytesIO(data), formats=[self.format]).convert("RGB")

    def digest(self, data: bytes, image: Image.Image | None, quality: float) -> Digest:
        """See ``Coder``; Pillow does not show symbols."""
        del data, image, quality
        return None


class ZooCoder:
    """A pretrained model of CompressAI; its file is sizes and strings, one after the other."""

    def __init__(self, candidate: Candidate) -> None:
        from compressai.zoo import image_models

        self.device, self.models = candidate.device, {}
        for quality in candidate.qualities:
            model = image_models[candidate.source](
                int(quality), metric=candidate.settings["metric"], pretrained=True, progress=False
            )
            self.models[quality] = model.eval().to(self.device)

    def encode(self, image: Image.Image, quality: float) -> bytes:
        """See ``Coder``: width, height, shape of z, and each string with its length."""
        import torch
        import torch.nn.functional as F  # noqa: N812

        x = image_to_tensor(image).to(self.device)
        x = F.pad(x, (0, -image.width % 64, 0, -image.height % 64), mode="replicate")
        with torch.inference_mode():
            out = self.models[quality].compress(x)
        head = struct.pack("<4H", image.width, image.height, *out["shape"])
        return head + b"".join(struct.pack("<I", len(s[0])) + s[0] for s in out["strings"])

    def decode(self, data: bytes, quality: float) -> Image.Image:
        """See ``Coder``."""
        import torch

        width, height, *shape = struct.unpack_from("<4H", data)
        strings, position = [], 8
        while position < len(data):
            (n,) = struct.unpack_from("<I", data, position)
            strings.append([data[position + 4 : position + 4 + n]])
            position += 4 + n
        with torch.inference_mode():
            out = self.models[quality].decompress(strings, tuple(shape))
        return tensor_to_image(out["x_hat"][..., :height, :width])

    def digest(self, data: bytes, image: Image.Image | None, quality: float) -> Digest:
        """See ``Coder``; not looked at."""
        del data, image, quality
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
