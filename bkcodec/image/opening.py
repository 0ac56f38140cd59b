"""Image files: recognised, held against limits before their pixels are decoded, decoded.

Pillow's ``Image.open`` is not used, but the readers that it would ask: it has limits of its own for
the whole process, and some readers decode while they open, before anyone could look at the size.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin

from bkcodec.errors import InputError, LimitError
from bkcodec.image import png, tiff
from bkcodec.image.jpeg import is_complete, n_scans
from bkcodec.image.metadata import DECODER_ERRORS
from bkcodec.options import Limits
from bkcodec.tiling import check_pixels

# What a photo may come as. Pillow knows more, some of it through other programs.
INPUT_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "PPM",
    "AVIF",
    "JPEG2000",
    "TGA",
    "ICO",
    "QOI",
    "BKC",
    "HEIF",
    "JXL",
)
ADDED = ("pillow_heif", "pillow_jxl")  # packages that teach Pillow two of them, where installed
MAX_SCANS = 256  # of a JPEG file; each costs as much as decoding a small file
MAX_FRAMES = 1000  # that are counted
_PREFIX = 16  # bytes by which a reader knows its files
_END = b"\xff\xd9"  # of a JPEG file
_LOCK = threading.RLock()  # while something of Pillow's is changed for all threads


def open_header(fo: BinaryIO, limits: Limits = Limits()) -> ImageFile.ImageFile:  # noqa: B008
    """Open an image file without decoding its pixels.

    Args:
        fo: a binary file object that can seek, at the file's beginning.
        limits: what is accepted.

    Raises:
        InputError: not an image that can be read.
        LimitError: more pixels than allowed, or a JPEG of more than ``MAX_SCANS`` scans.
    """
    try:
        prefix = fo.read(_PREFIX)
        fo.seek(0)
        _hold(fo, prefix, limits)
        image = _opened(fo, prefix)
    except DECODER_ERRORS as error:
        raise InputError("not an image that can be read (damaged, or an unknown type)") from error
    if image is None:
        raise InputError(_unknown(prefix))
    check_pixels(*image.size, 1, limits)
    return image


def load_pixels(image: Image.Image, accept_damaged: bool = False) -> bool:
    """Decode the pixels of an image; returns whether some of them were missing.

    A JPEG file that lacks nothing but its end marker is taken for whole.

    Args:
        image: whose header was read.
        accept_damaged: fill what is missing instead of raising; for this process, other threads
            do too meanwhile.

    Raises:
        InputError: damaged.
    """
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    missing = InputError(f"damaged {image.format} image: rows are missing")
    lacks_rows = tiff.lacks_rows(image)
    if lacks_rows and not accept_damaged:
        raise missing
    try:
        image.load()
        lacks_rows = lacks_rows or (file is not None and _ends_early(image, file))
        if lacks_rows and not accept_damaged:
            raise missing
        return lacks_rows
    except DECODER_ERRORS as error:
        if "unknown raw mode" in str(error):
            raise InputError("samples that lie in an unusual way; save them interleaved") from error
        damage = InputError(f"damaged {image.format} image: {error}")
        if image.format == "JPEG" and file is not None and _lacks_only_its_end(file):
            with _truncated_allowed(), contextlib.suppress(*DECODER_ERRORS):
                image.load()
                return False
        if not accept_damaged:
            raise damage from error
    try:
        with _truncated_allowed():
            image.load()
        return True
    except DECODER_ERRORS as error:
        raise damage from error


def n_frames(fo: BinaryIO, image: Image.Image) -> int:
    """Frames or pages of an image, counted up to ``MAX_FRAMES``; 1 where counting them fails."""
    with contextlib.suppress(*DECODER_ERRORS):
        if image.format == "GIF":
            return min(MAX_FRAMES, sum(1 for _ in zip(_gif_frames(fo), range(MAX_FRAMES))))  # noqa: B905
        if image.format == "TIFF":
            return min(MAX_FRAMES, sum(1 for _ in zip(tiff.directories(fo), range(MAX_FRAMES))))  # noqa: B905
        return min(MAX_FRAMES, int(getattr(image, "n_frames", 1)))
    return 1


def _opened(fo: BinaryIO, prefix: bytes) -> ImageFile.ImageFile | None:
    """By the usual five readers; the others take time to load, and come if these do not know it."""
    Image.preinit()
    image = _recognised(fo, prefix)
    if image is None:
        Image.init()
        for package in ADDED:
            _register(package)
        image = _recognised(fo, prefix)
    return image


def _recognised(fo: BinaryIO, prefix: bytes) -> ImageFile.ImageFile | None:
    for name in INPUT_FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        answer = accept(prefix) if accept is not None else True
        if answer is not True and not answer or isinstance(answer, str):
            continue
        fo.seek(0)
        with contextlib.suppress(
            SyntaxError, IndexError, TypeError, KeyError, EOFError, struct.error
        ):
            with _long_text_allowed() if name == "PNG" else contextlib.nullcontext():
                image: ImageFile.ImageFile = factory(fo, "")
            return image
    return None


def _register(package: str) -> None:
    """Have a package add its formats to Pillow, where it is installed."""
    with contextlib.suppress(ImportError):
        module = import_module(package)
        register = getattr(module, "register_heif_opener", None)  # the other does it by itself
        if register is not None:
            register()


def _unknown(prefix: bytes) -> str:
    """Why a file cannot be read, by its first bytes."""
    kind = prefix[4:12]
    if kind in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return "a HEIC image: install pillow-heif to read these"
    if prefix.startswith(b"\xff\x0a") or kind == b"JXL \r\n\x87\n":
        return "a JPEG XL image: install pillow-jxl-plugin to read these"
    if kind == b"ftypcrx " or prefix.startswith((b"IIRO", b"IIU\0", b"FUJIFILM", b"FOVb")):
        return "a raw file; develop it first"
    if prefix.startswith((b"II*\0", b"MM\0*")):
        return "a TIFF image of a kind that cannot be read (a raw file must be developed first)"
    return "not an image that can be read (damaged, or an unknown type)"


@contextlib.contextmanager
def _long_text_allowed() -> Iterator[None]:
    """Pillow takes ICC profiles of 1 MiB from PNG files, we of 16 MiB."""
    with _LOCK:
        before = PngImagePlugin.MAX_TEXT_CHUNK
        PngImagePlugin.MAX_TEXT_CHUNK = max(before, Limits().max_metadata_bytes)
        try:
            yield
        finally:
            PngImagePlugin.MAX_TEXT_CHUNK = before


@contextlib.contextmanager
def _truncated_allowed() -> Iterator[None]:
    with _LOCK:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _hold(fo: BinaryIO, prefix: bytes, limits: Limits) -> None:
    """Look at what readers would begin to decode, before they do."""
    if prefix.startswith(b"\0\0\1\0"):
        _hold_icon(fo, limits)
    elif prefix.startswith(b"\xff\x0a") or prefix[4:8] == b"JXL ":
        check_pixels(*_jxl_size(fo), 1, limits)
    elif prefix.startswith(b"\xff\xd8"):
        scans = n_scans(fo.read())
        if scans > MAX_SCANS:
            raise LimitError(f"a JPEG image of {scans} scans, at most {MAX_SCANS} are read")
    fo.seek(0)


def _hold_icon(fo: BinaryIO, limits: Limits) -> None:
    """Pillow decodes the largest picture of an icon while it opens it."""
    data = fo.read()
    (count,) = struct.unpack_from("<H", data, 4)
    for i in range(count):
        (start,) = struct.unpack_from("<I", data, 6 + 16 * i + 12)
        if data[start : start + 4] == b"\x89PNG":
            width, height = struct.unpack_from(">II", data, start + 16)
        else:
            width, height = struct.unpack_from("<ii", data, start + 4)
            height = abs(height) // 2  # picture and mask
        check_pixels(abs(width), height, 1, limits)


def _jxl_size(fo: BinaryIO) -> tuple[int, int]:
    """Width and height of a JPEG XL file (ISO/IEC 18181-1), whose reader decodes while it opens."""
    data = fo.read(2**16)
    start = data.index(b"\xff\x0a") + 2
    bits = int.from_bytes(data[start : start + 16], "little")

    def take(n: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << n) - 1), bits >> n
        return value

    def side(is_small: bool) -> int:
        return 8 * (take(5) + 1) if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    is_small = bool(take(1))
    height, ratio = side(is_small), take(3)
    if not ratio:
        return side(is_small), height
    above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * above // below, height


def _lacks_only_its_end(fo: IO[bytes]) -> bool:
    """Whether what follows the coded data of a JPEG file would change nothing."""
    with contextlib.suppress(*DECODER_ERRORS):
        fo.seek(0)
        data = fo.read()
        if not is_complete(data):
            return False
        pictures = [_decoded(data + filler + _END) for filler in (b"", b"\x55" * 8, b"\xaa" * 8)]
        return all(np.array_equal(pictures[0], other) for other in pictures[1:])
    return False


def _ends_early(image: Image.Image, fo: IO[bytes]) -> bool:
    """Whether the rows of a PNG end before the picture does, of which Pillow says nothing.

    Looked into where the last row is blank only: it takes as long as decoding.
    """
    last = (0, image.height - 1, image.width, image.height)
    if image.format != "PNG" or np.asarray(image.crop(last)).any():
        return False
    with contextlib.suppress(*DECODER_ERRORS, zlib.error):
        return png.lacks_rows(fo)
    return False


def _decoded(data: bytes) -> NDArray[np.uint8]:
    factory: Callable[..., Image.Image] = Image.OPEN["JPEG"][0]
    return np.asarray(factory(io.BytesIO(data), ""))


def _gif_frames(fo: BinaryIO) -> Iterator[int]:
    """Places of the frames of a GIF file (GIF89a): blocks are skipped, nothing is decoded."""
    fo.seek(0)
    data = fo.read()
    place = 13 + _colours(data[10])
    while place < len(data) and data[place] != 0x3B:
        is_frame = data[place] == 0x2C
        if is_frame:
            yield place
            place += 11 + _colours(data[place + 9])
        else:
            place += 2
        while data[place]:
            place += data[place] + 1
        place += 1


def _colours(flags: int) -> int:
    """Bytes of the table of colours that a GIF's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
