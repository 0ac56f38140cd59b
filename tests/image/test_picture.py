"""Pictures: what becomes of alpha and of profiles."""

from __future__ import annotations

import numpy as np

from bkcodec.image.picture import Picture, apply_alpha
from bkcodec.metadata import Metadata


def test_grey_profile_goes_when_grey_becomes_colour() -> None:
    pixels, profile = np.zeros((1, 1, 3), np.uint8), Metadata(b"grey profile")
    grey = Picture(pixels, np.zeros((1, 1), np.uint8), True, profile)
    assert apply_alpha(grey, "red").metadata.icc is None
    assert apply_alpha(grey, "white").metadata.icc == b"grey profile"
