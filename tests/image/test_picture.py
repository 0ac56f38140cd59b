"""Pictures: what becomes of alpha and of profiles, and what is said of drawings."""

from __future__ import annotations

import numpy as np
from PIL import Image

from bkcodec.image.picture import Picture, apply_alpha
from bkcodec.image.reading import picture_from_image
from bkcodec.metadata import Metadata


def test_grey_profile_goes_when_grey_becomes_colour() -> None:
    pixels, profile = np.zeros((1, 1, 3), np.uint8), Metadata(b"grey profile")
    grey = Picture(pixels, np.zeros((1, 1), np.uint8), True, profile)
    assert apply_alpha(grey, "red").metadata.icc is None
    assert apply_alpha(grey, "white").metadata.icc == b"grey profile"


def test_only_drawings_are_called_so(lake: Image.Image) -> None:
    """Grey has at most 256 values; a photo in grey is a photo."""
    drawing = Image.new("RGB", lake.size, "white")
    drawing.paste("navy", (10, 10, 300, 200))
    for image, is_drawn in (
        (lake, False),
        (lake.convert("L"), False),
        (drawing, True),
        (drawing.convert("L"), True),
    ):
        notes = picture_from_image(image).notes
        assert any("few colours" in note for note in notes) is is_drawn
