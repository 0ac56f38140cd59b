"""Pictures for the report, small enough that hundreds of them fit into one page.

Files that every browser shows (JPEG, WebP, AVIF) are kept as they are. What other codecs decode to
is kept as an AVIF copy without colour subsampling, at a quality that the space allows.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bkcodec.bench.candidates import Candidate
from bkcodec.bench.cells import Cell
from bkcodec.bench.dataset import Photo

BUDGET = 24_000_000  # characters of base64 that the pictures of a report may have
NATIVE = {"jpeg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}
NATIVE_BPP = 0.45  # of these files, about, over a ladder
# Quality of AVIF copies, and the bits a pixel that they take, about, over a ladder.
COPIES = ((90, 1.45), (82, 1.05), (75, 0.9), (65, 0.69), (55, 0.53), (48, 0.43))
ORIGINAL_QUALITY, ORIGINAL_BPP = 75, 1.5


class PictureStore:
    """Keeps display copies in a folder.

    Args:
        folder: made if missing.
        photos: all pictures of the dataset.
        candidates: all codecs; with the photos they say how many copies there will be.
    """

    def __init__(
        self, folder: Path, photos: Sequence[Photo], candidates: Sequence[Candidate]
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        steps = [(c.name in NATIVE, len(c.qualities)) for c in candidates]
        self.quality, self.shown = plan(
            [p.width * p.height for p in photos],
            sum(n for native, n in steps if native),
            sum(n for native, n in steps if not native),
        )
        self.photos = list(photos[: self.shown])
        for index, photo in enumerate(self.photos):
            path = folder / f"original-{index:04d}.avif"
            if not path.exists():
                with Image.open(photo.path) as image:
                    _save(image, path, ORIGINAL_QUALITY)
        self._index = {photo.name: index for index, photo in enumerate(self.photos)}

    def keep(self, cell: Cell, file: Path | None, picture: Path) -> None:
        """Store what a browser can show of a cell: the codec's own file, or a copy."""
        place = self._place(cell)
        if place is None:
            return
        if cell.codec in NATIVE and file is not None:
            place.write_bytes(file.read_bytes())
            return
        with Image.open(picture) as image:
            _save(image.convert("RGB"), place, self.quality)

    def has(self, cell: Cell) -> bool:
        """Whether the picture of a finished cell is there, or is not needed."""
        place = self._place(cell)
        return place is None or place.is_file()

    def uri(self, cell: Cell) -> str | None:
        """A data: address of a cell's picture."""
        place = self._place(cell)
        if place is None or not place.is_file():
            return None
        return _uri(place, NATIVE.get(cell.codec, "image/avif"))

    def original_uri(self, photo: Photo) -> str:
        """A data: address of an original's copy."""
        return _uri(self.folder / f"original-{self._index[photo.name]:04d}.avif", "image/avif")

    def _place(self, cell: Cell) -> Path | None:
        index = self._index.get(cell.image)
        if index is None:
            return None
        name = "".join(c if c.isalnum() else "_" for c in cell.codec)
        return self.folder / f"{name}-{cell.quality:g}-{index:04d}"


def plan(n_pixels: Sequence[int], n_native: int, n_copies: int) -> tuple[int, int]:
    """The best quality of copies for which all pictures fit, and how many photos fit.

    Args:
        n_pixels: of each photo.
        n_native: pictures a photo that are files as they are.
        n_copies: pictures a photo that are AVIF copies.
    """
    available = BUDGET * 3 / 4 * 8  # bits
    fixed = NATIVE_BPP * n_native + ORIGINAL_BPP
    for quality, bpp in COPIES:
        if sum(n_pixels) * (fixed + bpp * n_copies) <= available:
            return quality, len(n_pixels)
    quality, bpp = COPIES[-1]
    needed = np.cumsum(np.array(n_pixels, np.float64)) * (fixed + bpp * n_copies)
    return quality, max(1, int(np.searchsorted(needed, available, side="right")))


def _save(image: Image.Image, path: Path, quality: int) -> None:
    image.save(path, "AVIF", quality=quality, subsampling="4:4:4", speed=8)


def _uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
