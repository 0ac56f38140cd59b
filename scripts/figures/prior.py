"""What the context prior is worth: python scripts/figures/prior.py PHOTOS CONTEXT FACTORIZED.

Two bundles of one run, one with each prior (``bkcodec train --export RUN --prior ...``): the same
transforms, so the same symbols. Prints means over the photos at each quality: size of the whole
file, distance of the coded string from the ideal length, milliseconds for coding and decoding
(warm, medians of three).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bkcodec.codec import Codec
from bkcodec.image.reading import picture_from_image
from bkcodec.options import EncodeOptions


def median(work: Callable[[], object]) -> float:
    """Of three runs, in milliseconds."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    photos = sorted(Path(sys.argv[1]).glob("*.png"))
    context, factorized = (Codec(path, "cpu") for path in sys.argv[2:4])
    for quality in (10, 30, 50, 70, 90):
        options = EncodeOptions(quality=quality)
        rows = []
        for path in photos:
            picture = picture_from_image(Image.open(path))
            pixels = picture.size[0] * picture.size[1]
            sizes = [
                8 * len(codec.encode_picture(picture, options).data) / pixels
                for codec in (context, factorized)
            ]
            symbols = context.encoder.quantise(
                context.encoder.analyse(picture.rgb, None)[1], 2 * quality
            )
            coder = context.bundle.prior.level(2 * quality)
            data, _ = coder.encode(symbols)
            encoding = median(lambda: coder.encode(symbols))  # noqa: B023 (called at once)
            decoding = median(lambda: coder.decode(data, *symbols.shape[1:]))  # noqa: B023
            likelihoods = coder.likelihoods(symbols)[1].astype(np.float64)
            beyond = len(data) + np.log2(likelihoods).sum() / 8
            rows.append([*sizes, beyond, len(data), encoding, decoding])
        mean, largest = np.mean(rows, axis=0), np.max(rows, axis=0)
        print(
            f"q {quality:3d}  context {mean[0]:.4f} bpp  factorized {mean[1]:.4f} bpp  "
            f"{100 * (mean[0] / mean[1] - 1):+.1f} %  beyond the ideal {mean[2]:.1f} "
            f"(largest {largest[2]:.1f}) of {mean[3]:.0f} bytes  "
            f"encode {mean[4]:.0f} ms  decode {mean[5]:.0f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
