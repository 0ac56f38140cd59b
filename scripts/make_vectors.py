"""Adds golden vectors: python scripts/make_vectors.py [VAE].

With the directory of a pretrained VAE also those of the bundle bk-sdm. Files already in
formats/vectors are left alone: once released, a vector never changes. Their hashes are in
SHA256SUMS there, as sha256sum writes and checks them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

import bkcodec
from bkcodec.container import container_from_bytes, container_to_bytes
from bkcodec.image.reading import picture_from_image
from bkcodec.options import Backbone

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "formats" / "vectors"
SUMS = "SHA256SUMS"
# A level map: an object in the middle, a coarser frame, rising to the right.
OFFSETS = np.zeros((8, 12), np.int16)
OFFSETS[:] = np.arange(12) * 3 - 20
OFFSETS[2:6, 3:8] = 70
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><note>golden</note></x:xmpmeta>'


def pictures() -> dict[str, bytes]:
    """File name -> content."""
    lake = Image.open(ROOT / "tests" / "samples" / "lake.png").convert("RGB")
    detail = lake.crop((200, 180, 330, 267))
    grey_alpha = detail.convert("L")
    grey_alpha.putalpha(Image.linear_gradient("L").resize(detail.size))
    described = detail.resize((65, 44))
    exif = Image.Exif()
    exif[0x010F] = "bkcodec"
    described.info = {
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "exif": exif.tobytes(),
        "xmp": XMP,
    }
    codec = bkcodec.Codec(device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
    jobs = {
        "lake-q0": (lake, 0),
        "lake-q30": (lake, 30),
        "lake-q60": (lake, 60),
        "detail-q100": (detail, 100),
        "noise-q100": (Image.fromarray(noise), 100),
        "grey-alpha-q50": (grey_alpha, 50),
        "metadata-q45.5": (described, 45.5),
        "pixel-q50": (Image.new("RGB", (1, 1), "orange"), 50),
        "strip-q80": (lake.crop((0, 300, 768, 303)), 80),
    }
    files = {}
    for name, (image, quality) in jobs.items():
        files[f"{name}.bkc"] = codec.encode(image, bkcodec.EncodeOptions(quality=quality))
    middle = bkcodec.EncodeOptions(quality=40)
    mapped = codec.encode_picture(picture_from_image(lake), middle, OFFSETS)
    files["lake-map-q40.bkc"] = mapped.data
    if len(sys.argv) > 1:
        codec = bkcodec.Codec("bk-sdm", "cpu", Backbone(vae=sys.argv[1]))
        for quality in (0, 60, 100):
            chosen = bkcodec.EncodeOptions(quality=quality)
            files[f"lake-sd-q{quality}.bkc"] = codec.encode(lake, chosen)
        hinted = replace(container_from_bytes(files["lake-sd-q60.bkc"]), timestep=250, seed=7)
        files["hints-sd-q60.bkc"] = container_to_bytes(hinted)
    hinted = replace(container_from_bytes(files["detail-q100.bkc"]), timestep=40, seed=123456)
    files["hints-q100.bkc"] = container_to_bytes(hinted)
    return files


def main() -> None:
    VECTORS.mkdir(exist_ok=True)
    for name, data in pictures().items():
        if (VECTORS / name).exists():
            continue
        (VECTORS / name).write_bytes(data)
        described = bkcodec.info(data, verify=True)
        if described.pop("model") == "lite":  # others depend on what is installed, and on floats
            image = bkcodec.decode(data)
            colours = image.convert(image.mode.removesuffix("A"))
            described["pixels_sha256"] = sha256(colours.tobytes()).hexdigest()
        (VECTORS / name).with_suffix(".json").write_text(json.dumps(described, indent=2) + "\n")
        with (VECTORS / SUMS).open("a") as sums:
            for path in (VECTORS / name, (VECTORS / name).with_suffix(".json")):
                sums.write(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


if __name__ == "__main__":
    main()
