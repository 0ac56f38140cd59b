"""Pictures for the report, small enough that hundreds of them fit into one page.

Files that every browser shows (JPEG, WebP, AVIF) are kept as they are. What other codecs decode to
is kept as an AVIF copy without colour subsampling, at a quality that the space allows. Of photos
above ``LARGE`` pixels only the middle is shown, as such a copy for every codec.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, features

from bkcodec.bench.cells import Cell
from bkcodec.bench.codecs import PILLOW, Candidate
from bkcodec.bench.dataset import Photo
from bkcodec.errors import UnsupportedError
from bkcodec.files import write_whole
from bkcodec.pages.template import data_uri

BUDGET = 24_000_000  # characters of base64 that a report may have
LARGE, MIDDLE = 1_500_000, (1152, 768)  # pixels; width and height of what is shown of larger ones
NATIVE_BPP = 0.45  # of files that browsers show, about, over a ladder
# Quality of AVIF copies, and the bits per pixel that they take, about, over a ladder.
COPIES = ((90, 1.45), (82, 1.05), (75, 0.9), (65, 0.69), (55, 0.53), (48, 0.43))
ORIGINAL_QUALITY, ORIGINAL_BPP = 75, 1.5


class PictureStore:
    """Keeps display copies in a folder.

    Args:
        folder: made if missing.
        photos: all pictures of the dataset.
        candidates: all codecs; with the photos they say how many copies there will be.

    Raises:
        UnsupportedError: Pillow without AVIF.
    """

    def __init__(
        self, folder: Path, photos: Sequence[Photo], candidates: Sequence[Candidate]
    ) -> None:
        if not features.check("avif"):
            raise UnsupportedError("the report needs a Pillow with AVIF (11.3 or newer)")
        self.folder, self._native = folder, {c.name: mime_of(c) for c in candidates}
        folder.mkdir(parents=True, exist_ok=True)
        steps = [(self._native[c.name] is not None, len(c.qualities)) for c in candidates]
        self.quality, shown = plan(
            [p.width * p.height for p in photos],
            sum(n for native, n in steps if native),
            sum(n for native, n in steps if not native),
        )
        self.photos = list(photos[:shown])
        self._shown = {photo.name: photo for photo in self.photos}
        for photo in self.photos:
            path = self._original(photo)
            if not path.exists():
                _save(photo.path, path, ORIGINAL_QUALITY)

    def keep(self, cell: Cell, file: Path | None, picture: Path) -> None:
        """Store what a browser can show of a cell: the codec's own file, or a copy."""
        place = self._place(cell)
        if place is None:
            return
        if file is not None and self._type(cell) != "image/avif-copy":
            write_whole(place, file.read_bytes(), force=True)
        else:
            _save(picture, place, self.quality)

    def has(self, cell: Cell) -> bool:
        """Whether the picture of a finished cell is there, or is not needed."""
        place = self._place(cell)
        return place is None or place.is_file()

    def uri(self, cell: Cell) -> str | None:
        """A data: address of a cell's picture."""
        place = self._place(cell)
        if place is None or not place.is_file():
            return None
        return data_uri(place.read_bytes(), self._type(cell).removesuffix("-copy"))

    def original_uri(self, photo: Photo) -> str:
        """A data: address of an original's copy."""
        return data_uri(self._original(photo).read_bytes(), "image/avif")

    def _type(self, cell: Cell) -> str:
        large = cell.width * cell.height > LARGE
        return "image/avif-copy" if large else self._native[cell.codec] or "image/avif-copy"

    def _original(self, photo: Photo) -> Path:
        return self.folder / f"original-{photo.digest[:16]}"

    def _place(self, cell: Cell) -> Path | None:
        if cell.image not in self._shown:
            return None
        key = f"{cell.codec}\0{cell.quality!r}\0{self._shown[cell.image].digest}"
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:32]


def mime_of(candidate: Candidate) -> str | None:
    """Type of a codec's files where browsers show them."""
    return PILLOW[candidate.source].mime if candidate.kind == "pillow" else None


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the middle part that is shown of a photo."""
    if width * height <= LARGE:
        return width, height
    return min(width, MIDDLE[0]), min(height, MIDDLE[1])


def plan(n_pixels: Sequence[int], n_native: int, n_copies: int) -> tuple[int, int]:
    """The best quality of copies for which all pictures fit, and how many photos fit.

    Args:
        n_pixels: of each photo.
        n_native: pictures per photo that are files as they are, where it is not large.
        n_copies: pictures per photo that are AVIF copies.
    """
    available = BUDGET * 3 / 4 * 8  # bits
    bits = np.zeros(1)
    for quality, bpp in COPIES:
        copy = ORIGINAL_BPP + bpp * n_copies
        bits = np.cumsum(
            [
                MIDDLE[0] * MIDDLE[1] * (copy + bpp * n_native)
                if n > LARGE
                else n * (copy + NATIVE_BPP * n_native)
                for n in n_pixels
            ]
        )
        if bits[-1] <= available:
            return quality, len(n_pixels)
    return COPIES[-1][0], int(np.searchsorted(bits, available, side="right"))


def _save(picture: Path, path: Path, quality: int) -> None:
    out = io.BytesIO()
    with Image.open(picture) as image:
        width, height = shown_size(*image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        part = image.convert("RGB").crop((left, top, left + width, top + height))
        part.save(out, "AVIF", quality=quality, subsampling="4:4:4", speed=8)
    write_whole(path, out.getvalue(), force=True)
