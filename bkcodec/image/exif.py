"""EXIF blocks changed in place: upright, without the thumbnail, without the place.

All else stays as it was, to the byte: makers' notes hold places in the block. What goes is filled
with zeros, which take next to nothing in a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

ORIENTATION, GPS_IFD = 0x0112, 0x8825
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_DIRECTORIES = (0x8769, GPS_IFD, 0xA005)  # Exif, GPS, interoperability
_INTEGER_KINDS = {3: "H", 4: "I"}  # TIFF's SHORT, which orientation should be, and LONG
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_BROKEN = (KeyError, struct.error, ValueError, IndexError)
_ENTRY = 12  # bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tag of a directory: where its entry lies, and where its value."""

    tag: int
    kind: int
    position: int
    value: int
    n_bytes: int


class _Block:
    """A TIFF structure that may be damaged anywhere; each method may raise what is ``_BROKEN``."""

    def __init__(self, block: bytes) -> None:
        self.bytes = bytearray(block)
        self.order = {b"II": "<", b"MM": ">"}[block[:2]]

    def number(self, position: int, kind: str = "I") -> int:
        (value,) = struct.unpack_from(self.order + kind, self.bytes, position)
        return int(value)

    def entries(self, directory: int) -> Iterator[_Entry]:
        for i in range(self.number(directory, "H")):
            position = directory + 2 + _ENTRY * i
            tag, kind = self.number(position, "H"), self.number(position + 2, "H")
            n_bytes = self.number(position + 4) * _SIZES.get(kind, 1)
            value = position + 8 if n_bytes <= 4 else self.number(position + 8)
            yield _Entry(tag, kind, position, value, n_bytes)

    def next_link(self, directory: int) -> int:
        """Where the place of the next directory stands."""
        return directory + 2 + _ENTRY * self.number(directory, "H")

    def clear(self, start: int, n_bytes: int) -> None:
        end = min(start + n_bytes, len(self.bytes))
        if 8 <= start < end:
            self.bytes[start:end] = bytes(end - start)

    def clear_directory(self, directory: int) -> None:
        entries = list(self.entries(directory))
        for entry in entries:
            if entry.n_bytes > 4:
                self.clear(entry.value, entry.n_bytes)
        self.clear(directory, 2 + _ENTRY * len(entries) + 4)


def upright(block: bytes) -> bytes:
    """The block with an orientation of 1, if it has one."""
    try:
        parsed = _Block(block)
        for entry in parsed.entries(parsed.number(4)):
            if entry.tag == ORIENTATION:
                if entry.kind in _INTEGER_KINDS:
                    place, kind = entry.position + 8, _INTEGER_KINDS[entry.kind]
                    value = struct.pack(parsed.order + kind, 1)
                else:  # what some readers make sense of: a SHORT takes its place
                    place = entry.position
                    value = struct.pack(parsed.order + "HHIHH", ORIENTATION, 3, 1, 1, 0)
                return block[:place] + value + block[place + len(value) :]
    except _BROKEN:
        pass  # not a TIFF structure: there is no orientation to correct
    return block


def thumbnail_bytes(block: bytes | None) -> int:
    """Size of the preview in a block; 0 without one."""
    try:
        parsed = _Block(block or b"")
        directory = parsed.number(parsed.next_link(parsed.number(4)))
        if directory:
            for entry in parsed.entries(directory):
                if entry.tag == _THUMBNAIL_BYTES:
                    return parsed.number(entry.value)
    except _BROKEN:
        pass
    return 0


def without_thumbnail(block: bytes) -> bytes:
    """The block without its preview.

    One that claims the bytes of something else is forgotten, but its bytes stay.
    """
    try:
        parsed = _Block(block)
        link = parsed.next_link(parsed.number(4))
        directory = parsed.number(link)
        if not directory:
            return block
        values = {entry.tag: parsed.number(entry.value) for entry in parsed.entries(directory)}
        start, n_bytes = values.get(_THUMBNAIL, 0), values.get(_THUMBNAIL_BYTES, 0)
        is_last = start + n_bytes == len(block)  # as usual
        if _overlaps(parsed, start, start + n_bytes):
            parsed.bytes[link : link + 4] = bytes(4)
            return bytes(parsed.bytes)
        parsed.clear(start, n_bytes)
        parsed.clear_directory(directory)
        parsed.bytes[link : link + 4] = bytes(4)
        return bytes(parsed.bytes[:start] if n_bytes and is_last else parsed.bytes)
    except _BROKEN:
        return block


def _overlaps(parsed: _Block, start: int, end: int) -> bool:
    """Whether these bytes belong to other directories or their values, or lie beyond the block."""
    if end > len(parsed.bytes) or (end > 0 and start < 8):
        return True
    waiting, seen = [parsed.number(4)], set()
    while waiting:
        directory = waiting.pop()
        if directory in seen:
            continue
        seen.add(directory)
        entries = list(parsed.entries(directory))
        taken = [(directory, 2 + _ENTRY * len(entries) + 4)]
        taken += [(entry.value, entry.n_bytes) for entry in entries if entry.n_bytes > 4]
        if any(start < place + n and place < end for place, n in taken):
            return True
        waiting += [parsed.number(e.value) for e in entries if e.tag in _DIRECTORIES]
    return False


def without_gps(block: bytes) -> bytes:
    """The block without the place where the photo was taken."""
    try:
        parsed = _Block(block)
        first = parsed.number(4)
        for entry in parsed.entries(first):
            if entry.tag == GPS_IFD:
                parsed.clear_directory(parsed.number(entry.value))
                count, link = parsed.number(first, "H"), parsed.next_link(first)
                rest = parsed.bytes[entry.position + _ENTRY : link + 4]
                parsed.bytes[entry.position : link + 4] = rest + bytes(_ENTRY)
                struct.pack_into(parsed.order + "H", parsed.bytes, first, count - 1)
                return bytes(parsed.bytes)
    except _BROKEN:
        pass
    return block
