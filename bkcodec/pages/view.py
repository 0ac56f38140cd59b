"""The page of ``bkcodec view``: one decoded picture, beside its original where there is one."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bkcodec.errors import LimitError
from bkcodec.image.picture import Pixels, Rows
from bkcodec.image.writing import save_rows
from bkcodec.pages.template import as_script, data_uri, rendered

MAX_BYTES = 24_000_000  # of a picture: in base64 some browsers take no more than 32 million
_BAND = 64  # rows that are compared at once


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture of the page.

    Attributes:
        name: of its file.
        n_bytes: of its file.
        rows: its pixels; EXIF and XMP do not get into the page.
    """

    name: str
    n_bytes: int
    rows: Rows


def view_page(decoded: Shown, quality: float, original: Shown | None) -> bytes:
    """The page, as HTML.

    Args:
        decoded: what a .bkc file decodes to.
        quality: of the .bkc file, 0..100.
        original: what it was made of, upright and of the same size.

    Raises:
        LimitError: a picture too large for a page.
    """
    pictures = [decoded] if original is None else [decoded, original]
    pixels = [picture.rows.whole() for picture in pictures]
    files = [_file(p, whole) for p, whole in zip(pictures, pixels, strict=True)]
    width, height = decoded.rows.width, decoded.rows.height
    uris = [data_uri(data, kind) for data, kind in files]
    rest = {} if original is None else {"right": uris[1]}
    text = rendered(
        "bkcodec.pages",
        "view.html.j2",
        name=decoded.name,
        width=width,
        height=height,
        n_bytes=decoded.n_bytes,
        bpp=8 * decoded.n_bytes / (width * height),
        quality=quality,
        original=original,
        psnr=None if original is None else psnr(*pixels),
        copied=any(kind != "image/png" for _, kind in files),
        data=as_script({"width": width, "height": height, "left": uris[0], **rest}),
    )
    return text.encode()


def psnr(a: Pixels, b: Pixels) -> float | None:
    """Peak signal-to-noise ratio of two pictures in dB, infinite where they are the same.

    Args:
        a: uint8 [H, W, channels].
        b: of the same height and width.

    Returns:
        None where one of them has an alpha plane.
    """
    if not {a.shape[2], b.shape[2]} <= {1, 3}:
        return None
    squares = sum(_squares(a, b))
    mean = squares / (a.shape[0] * a.shape[1] * max(a.shape[2], b.shape[2]))
    return 10 * math.log10(255**2 / mean) if mean else math.inf


def _squares(a: Pixels, b: Pixels) -> Iterator[int]:
    """Sums of squared differences, band by band: whole pictures may be large."""
    for top in range(0, len(a), _BAND):
        difference = a[top : top + _BAND].astype(np.int32) - b[top : top + _BAND]
        yield int(np.square(difference).sum(dtype=np.int64))


def _file(picture: Shown, pixels: Pixels) -> tuple[bytes, str]:
    """What a browser shows, and its type: PNG, or a JPEG copy where that would be too large."""
    rows = picture.rows
    kinds = [("png", "image/png"), ("jpg", "image/jpeg")]
    for extension, kind in kinds if rows.mode in ("L", "RGB") else kinds[:1]:
        out, metadata = io.BytesIO(), rows.metadata.without(["exif", "xmp"])
        save_rows(replace(rows, bands=iter([pixels]), metadata=metadata), out, extension)
        if out.tell() <= MAX_BYTES:
            return out.getvalue(), kind
    raise LimitError(f"{picture.name}: {rows.width} x {rows.height} pixels are too many for a page")
