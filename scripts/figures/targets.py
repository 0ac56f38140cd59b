"""What targets and maps give: python scripts/figures/targets.py targets|size|region|adapt PHOTO...

"targets" encodes each photo to values of metrics and prints what is reached, and in how many
tries; "size" does the same with sizes. "region" gives a tenth of each photo another 30 points, as
--roi does, and compares it with plain files of the same size. "adapt" holds files with a map of
their own against plain ones: by how many per cent they are smaller at an equal value of each
metric.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bkcodec import Codec, EncodeOptions, Region, TargetError
from bkcodec.coding.search import largest
from bkcodec.coding.targets import Metric, Target
from bkcodec.metrics import decibels, ms_ssim, psnr, ssimulacra2

Pixels = NDArray[np.uint8]

TARGETS = (
    *("ssimulacra2=50", "ssimulacra2=60", "ssimulacra2=70"),
    *("ms-ssim=0.95", "ms-ssim=0.98", "psnr=32"),
)
SIZES = 3_000, 5_000, 10_000, 20_000, 30_000  # bytes
REGION = Region(300, 150, 240, 164)  # a tenth of 768 x 512 pixels
MARKED = (30, 50)  # qualities of the files with a region
LADDER = range(0, 101, 4)
ADAPTED = (20, 40, 55)  # qualities


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def targets(codec: Codec, photos: Sequence[Image.Image]) -> None:
    for text in TARGETS:
        target, over, tries, refused = Target.parse(text), [], [], 0
        for photo in photos:
            with patch.object(
                Metric, "measure", autospec=True, side_effect=Metric.measure
            ) as probe:
                try:
                    data = codec.encode(photo, EncodeOptions(target=text))
                except TargetError:
                    refused += 1
                    continue
                tries.append(probe.call_count)
            over.append(target.metric.measure(pixels(photo), pixels(codec.decode(data))))
        above = np.array(over) - target.value
        print(
            f"{text}: reached on {np.count_nonzero(above >= 0)}, refused {refused}, above it by "
            f"{above.mean():.4f} ({above.max():.4f}), {np.mean(tries):.1f} tries",
            flush=True,
        )


def size(codec: Codec, photos: Sequence[Image.Image]) -> None:
    tries, unused = [], []

    def counted(code: Callable[[int], object], *others: object, **named: object) -> object:
        tries.append(0)

        def once(level: int) -> object:
            tries[-1] += 1
            return code(level)

        return largest(once, *others, **named)  # type: ignore[arg-type,type-var]

    with patch("bkcodec.encoding.largest", counted):
        for photo in photos:
            for limit in SIZES:
                n_bytes = len(codec.encode(photo, EncodeOptions(target_size=limit)))
                unused.append(100 * (1 - n_bytes / limit))
    print(f"{np.mean(tries):.1f} codings ({max(tries)} at most)")
    print(f"unused {np.mean(unused):.1f} % ({max(unused):.1f} % at most)")


def region(codec: Codec, photos: Sequence[Image.Image]) -> None:
    part = np.s_[REGION.y : REGION.y + REGION.height, REGION.x : REGION.x + REGION.width]
    for quality in MARKED:
        gains = []
        for photo in photos:
            marked = codec.encode(photo, EncodeOptions(quality=quality, regions=(REGION,)))
            plain = codec.encode(photo, EncodeOptions(target_size=len(marked)))
            original = pixels(photo)
            shown, other = (pixels(codec.decode(data)) for data in (marked, plain))
            inside = psnr(original[part], shown[part]) - psnr(original[part], other[part])
            gains.append([inside, psnr(original, shown) - psnr(original, other)])
        for name, values in zip(("region", "whole photo"), np.transpose(gains), strict=True):
            least, most, mean = values.min(), values.max(), values.mean()
            print(f"quality {quality}, {name}: {least:+.2f} to {most:+.2f}, mean {mean:+.2f} dB")


def adapt(codec: Codec, photos: Sequence[Image.Image]) -> None:
    metrics: dict[str, Callable[[Pixels, Pixels], float]] = {
        "SSIMULACRA2": lambda a, b: ssimulacra2(a, b) or 0.0,
        "MS-SSIM in dB": lambda a, b: decibels(ms_ssim(a, b) or 0.0),
        "PSNR": psnr,
    }

    def figures(photo: Image.Image, options: EncodeOptions) -> list[float]:
        data = codec.encode(photo, options)
        shown = pixels(codec.decode(data))
        return [math.log(len(data)), *(of(pixels(photo), shown) for of in metrics.values())]

    gains = []
    for photo in photos:
        curve = np.array([figures(photo, EncodeOptions(quality=q)) for q in LADDER])
        for quality in ADAPTED:
            size, *values = figures(photo, EncodeOptions(quality=quality, adapt=True))
            plain = [np.interp(v, curve[:, i], curve[:, 0]) for i, v in enumerate(values, start=1)]
            gains.append([100 * math.expm1(size - p) for p in plain])
    table = np.array(gains).reshape(len(photos), len(ADAPTED), len(metrics))
    for place, quality in enumerate(ADAPTED):
        for name, values in zip(metrics, table[:, place].T, strict=True):
            print(
                f"quality {quality}, {name}: {values.mean():+.1f} % "
                f"({values.min():+.1f} to {values.max():+.1f})"
            )


def main() -> None:
    what = {"targets": targets, "size": size, "region": region, "adapt": adapt}[sys.argv[1]]
    what(Codec("lite"), [Image.open(Path(name)).convert("RGB") for name in sys.argv[2:]])


if __name__ == "__main__":
    main()
