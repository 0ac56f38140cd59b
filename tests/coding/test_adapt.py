"""A picture's own level map: bits go where they buy similarity, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bkcodec.codec import Codec
from bkcodec.coding.adapt import GRAIN, MOST, STRENGTH, own_offsets
from bkcodec.container import container_from_bytes
from bkcodec.errors import UsageError
from bkcodec.image.reading import picture_from_image
from bkcodec.inspection import info
from bkcodec.metrics import ms_ssim, ssimulacra2
from bkcodec.options import EncodeOptions, Region

RNG = np.random.default_rng(3)
NOISE = RNG.integers(100, 156, (128, 192, 3)).astype(np.uint8)


def test_a_block_whose_bits_buy_more_gets_more() -> None:
    """All blocks cost more at the higher level, the right ones most; the left ones get better."""
    photo = NOISE.copy()

    def decode(level: int) -> tuple[np.ndarray, np.ndarray]:
        symbols, picture = np.ones((4, 8, 12), np.int16), np.full_like(photo, 128)
        if level > 100:
            picture[:, :64] = photo[:, :64]
            symbols[:, :, :8], symbols[:, :, 8:] = 2, 9
        return symbols, picture

    offsets = own_offsets(photo, 16, decode)
    assert offsets is not None and offsets.shape == (2, 3)
    assert (offsets[:, 0] > offsets[:, 1]).all() and (offsets[:, 1] > offsets[:, 2]).all()
    assert (offsets % GRAIN == 0).all() and np.abs(offsets).max() <= MOST * STRENGTH + GRAIN


def test_what_is_everywhere_the_same_has_no_map() -> None:
    flat = np.full((128, 128, 3), 77, np.uint8)
    offsets = own_offsets(flat, 16, lambda level: (np.zeros((4, 8, 8), np.int16), flat))
    assert offsets is not None and not offsets.any()


@pytest.mark.parametrize("size", [(64, 64), (43, 500), (500, 43), (1, 1)])
def test_small_pictures_have_none(codec: Codec, lake: Image.Image, size: tuple[int, int]) -> None:
    image = lake.crop((0, 0, *size))
    adapted, plain = (codec.encode(image, EncodeOptions(adapt=a)) for a in (True, False))
    assert adapted == plain


@pytest.mark.parametrize("size", [(65, 44), (130, 87), (300, 129)])
def test_odd_sizes(codec: Codec, lake: Image.Image, size: tuple[int, int]) -> None:
    data = codec.encode(
        lake.crop((100, 100, 100 + size[0], 100 + size[1])), EncodeOptions(adapt=True)
    )
    assert codec.decode(data).size == size


def test_it_is_more_alike_at_the_same_size(codec: Codec, lake: Image.Image) -> None:
    """A photo beside noise, for which bits buy little; in the mean, as single files differ."""
    image = np.array(lake)[150:406, 200:584]
    noise = np.random.default_rng(0).normal(0, 10, (256, 192, 1))
    image[:, 192:] = np.clip(128 + noise, 0, 255)
    picture = picture_from_image(Image.fromarray(image))
    values: dict[object, list[list[float]]] = {ms_ssim: [], ssimulacra2: []}
    for quality in (55, 60, 65, 70):
        plain = codec.encode_picture(picture, EncodeOptions(quality=quality))
        adapted = codec.encode_picture(picture, EncodeOptions(target_size=len(plain), adapt=True))
        assert len(adapted) <= len(plain) and adapted.container.level_map is not None
        decoded = [np.asarray(codec.decode(e.data)) for e in (plain, adapted)]
        for metric in (ms_ssim, ssimulacra2):
            values[metric].append([metric(picture.rgb, pixels) or 0.0 for pixels in decoded])
    for rows in values.values():
        without, with_map = np.mean(rows, axis=0)
        assert with_map > without


def test_it_is_added_to_regions(codec: Codec, lake: Image.Image) -> None:
    image = lake.crop((100, 100, 356, 228))
    alone, both = (
        codec.encode(image, EncodeOptions(quality=40, adapt=True, regions=regions))
        for regions in ((), (Region(0, 0, 64, 64, 10),))
    )
    difference = np.subtract(*(info(data)["quality_offsets"] for data in (both, alone)))
    assert difference.tolist() == [[10, 0, 0, 0], [0, 0, 0, 0]]
    assert container_from_bytes(both).level == 80


def test_it_goes_without_other_offsets(codec: Codec, small: Image.Image) -> None:
    with pytest.raises(UsageError, match="without another map"):
        picture, offsets = picture_from_image(small), np.zeros((2, 3), np.int16)
        codec.encode_picture(picture, EncodeOptions(adapt=True), offsets)
