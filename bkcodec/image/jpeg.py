"""The structure of a JPEG file (ITU-T T.81): its segments are found, nothing is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RSTn, SOI
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn, but for DHT, JPG and DAC
_END, _SCAN, _RESTARTS = 0xD9, 0xDA, 0xDD
_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_AFTER_CODED_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_COEFFICIENTS = 64  # of a block of 8 x 8


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of what follows it, up to the first picture's end.

    Coded data belongs to its scan.
    """
    place = 0
    while match := _MARKER.search(data, place):
        marker, start = match[1][0], match.end()
        place = start
        if marker == _END:
            return
        if marker in _ALONE:
            continue
        place += int.from_bytes(data[start : start + 2], "big")
        if marker == _SCAN:
            after = _AFTER_CODED_DATA.search(data, place)
            place = after.start() if after else len(data)
        yield marker, start, place


def n_scans(data: bytes) -> int:
    """Scans of the first picture."""
    return sum(marker == _SCAN for marker, _, _ in segments(data))


@dataclass(slots=True)
class _Seen:
    """What has come so far.

    Attributes:
        size: height and width in pixels.
        sampling: of each component, across and down.
        interval: MCUs between two restarts; 0 = there are none.
        left: coefficients of each component of which bits are missing.
        restarts: those that the last scan lacks.
    """

    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    interval: int = 0
    left: dict[int, set[int]] = field(default_factory=dict)
    restarts: int = 0

    def frame(self, payload: bytes) -> None:
        _, height, width, n = struct.unpack_from(">BHHB", payload)
        self.size = height, width
        for i in range(n):
            name, sampling = payload[6 + 3 * i], payload[7 + 3 * i]
            self.sampling[name] = sampling >> 4, sampling & 15
            self.left[name] = set(range(_COEFFICIENTS))

    def scan(self, payload: bytes) -> None:
        n = payload[0]
        names = [payload[1 + 2 * i] for i in range(n)]
        first, last, low = payload[1 + 2 * n], payload[2 + 2 * n], payload[3 + 2 * n] & 15
        if not low:
            for name in names:
                self.left[name] -= set(range(first, last + 1))
        if self.interval:
            expected = -(-self._units(names) // self.interval) - 1
            self.restarts = expected - len(_RESTART.findall(payload, 4 + 2 * n))

    def _units(self, names: list[int]) -> int:
        """MCUs of a scan (A.2)."""
        across, down = (max(s[i] for s in self.sampling.values()) for i in (0, 1))
        height, width = self.size
        own = self.sampling[names[0]] if len(names) == 1 else (1, 1)
        if len(names) == 1:
            height, width = -(-height * own[1] // down), -(-width * own[0] // across)
            across = down = 1
        return -(-width // (8 * across)) * -(-height // (8 * down))


def is_complete(data: bytes) -> bool:
    """Whether all scans and restarts of a picture have begun; the end of the last is not looked at.

    Raises:
        IndexError, KeyError, ValueError, struct.error: not a JPEG file.
    """
    seen = _Seen()
    for marker, start, end in segments(data):
        payload = data[start + 2 : end]
        if marker in _FRAMES:
            seen.frame(payload)
        elif marker == _RESTARTS:
            (seen.interval,) = struct.unpack_from(">H", payload)
        elif marker == _SCAN:
            seen.scan(payload)
    return bool(seen.left) and not any(seen.left.values()) and seen.restarts <= 0
