"""The metadata that travels with a photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

EXIF_PREFIX = b"Exif\0\0"  # what JPEG puts before the block, and Pillow's writers expect


@dataclass(frozen=True, slots=True)
class Metadata:
    """ICC profile, EXIF block (without JPEG's prefix) and XMP packet, as bytes or None."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def without(self, kinds: Iterable[str]) -> Metadata:
        """The same with some of "icc", "exif" and "xmp" left out."""
        absent: dict[str, bytes | None] = dict.fromkeys(kinds)
        return replace(self, **absent)

    def for_pillow(self) -> dict[str, bytes]:
        """What there is, under the names and in the form that Pillow has for it."""
        exif = EXIF_PREFIX + self.exif if self.exif else None
        blocks = {"icc_profile": self.icc, "exif": exif, "xmp": self.xmp}
        return {name: block for name, block in blocks.items() if block}


NO_METADATA = Metadata()
