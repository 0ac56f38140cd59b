"""ICC profiles where Pillow does not look for them: in JPEG 2000 and BMP files."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

from bkcodec.errors import InputError
from bkcodec.image.metadata import DECODER_ERRORS

_ENUMERATED, _ICC = 1, 2  # methods of a colr box (ISO/IEC 15444-1, I.5.3.3)
_USUAL = (16, 17, 18)  # enumerated: sRGB, grey, sYCC, which the decoder turns into sRGB
_EMBEDDED = b"DEBM"  # a BMP's colour space, "MBED"
_BMP_SPACE, _BMP_PROFILE, _V5 = 14 + 56, 14 + 112, 124  # places in the file; size of the header
_LONGEST = 2**24  # bytes of a profile


def embedded_profile(format: str | None, fo: BinaryIO) -> bytes | None:
    """The profile of a JPEG 2000 or BMP file; None for others, or without one.

    Raises:
        InputError: colours of an unknown kind.
    """
    place = fo.tell()
    try:
        with contextlib.suppress(*DECODER_ERRORS):
            if format == "JPEG2000":
                return _of_jp2(fo)
            if format == "BMP":
                return _of_bmp(fo)
    finally:
        fo.seek(place)
    return None


def _of_jp2(fo: BinaryIO) -> bytes | None:
    fo.seek(0)
    if fo.read(12)[4:8] != b"jP  ":
        return None  # a codestream without a file around it
    for kind, start, end in _boxes(fo, 0, None):
        if kind != b"jp2h":
            continue
        for inner, begin, stop in _boxes(fo, start, end):
            if inner == b"colr":
                return _of_colr(fo, begin, stop)
    return None


def _of_colr(fo: BinaryIO, begin: int, stop: int) -> bytes | None:
    fo.seek(begin)
    method = fo.read(3)[0]
    if method == _ICC and stop - begin <= _LONGEST:
        return fo.read(stop - begin - 3) or None
    if method == _ENUMERATED:
        (space,) = struct.unpack(">I", fo.read(4))
        if space not in _USUAL:
            raise InputError(f"a JPEG 2000 image of an unknown colour space ({space})")
    return None


def _boxes(fo: BinaryIO, start: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the contents of the boxes of a part of a file."""
    place = start
    while end is None or place + 8 <= end:
        fo.seek(place)
        length, kind = struct.unpack(">I4s", fo.read(8))
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", fo.read(8))
            head = 16
        if length < head:
            return  # the last one, which goes to the file's end
        yield kind, place + head, place + length
        place += length


def _of_bmp(fo: BinaryIO) -> bytes | None:
    fo.seek(0)
    head = fo.read(14 + _V5)
    (size,) = struct.unpack_from("<I", head, 14)
    if size < _V5 or head[_BMP_SPACE : _BMP_SPACE + 4] != _EMBEDDED:
        return None
    start, n_bytes = struct.unpack_from("<II", head, _BMP_PROFILE)
    if n_bytes > _LONGEST:
        return None
    fo.seek(14 + start)
    profile = fo.read(n_bytes)
    return profile if len(profile) == n_bytes else None
