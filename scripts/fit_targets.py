"""The table of bkcodec/coding/targets.py: what metrics say of photos at levels of quality.

    python scripts/fit_targets.py PHOTO...

encodes and decodes each photo at every twentieth level with lite, and prints the mean of each
metric over the photos, by level. They should be photos for training: what a codec is judged by is
not to be looked at beforehand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bkcodec.codec import Codec
from bkcodec.coding.targets import LEVELS, METRICS
from bkcodec.image.reading import picture_from_image
from bkcodec.options import EncodeOptions, level_to_quality


def main(paths: Sequence[str]) -> None:
    """Measure and print."""
    codec = Codec("lite")
    values = np.empty((len(paths), len(METRICS), len(LEVELS)))
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            picture = picture_from_image(image)
        for place, level in enumerate(LEVELS):
            data = codec.encode_picture(picture, EncodeOptions(quality=level_to_quality(level)))
            decoded = np.asarray(codec.decode(data.data).convert("RGB"))
            for row, metric in enumerate(METRICS.values()):
                values[number, row, place] = metric.measure(picture.rgb, decoded)
    for name, means in zip(METRICS, values.mean(axis=0), strict=True):
        print(f"{name}: {', '.join(f'{mean:.4g}' for mean in means)}")


if __name__ == "__main__":
    main(sys.argv[1:])
