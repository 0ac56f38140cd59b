"""A second decoder of z's symbols, written from formats/bkc-1.md alone.

It shares no code with the package: the container through Kaitai Struct's generated parser, the
range decoder in plain Python integers.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

MASK = 2**64 - 1


def read_safetensors(path: Path) -> dict[str, list[int]]:
    """The integer tables of a bundle, flattened."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    arrays = {}
    for key, code in (("lengths", "H"), ("low", "h"), ("weights", "H")):
        begin, end = header[f"tables.{key}"]["data_offsets"]
        part = data[8 + length + begin : 8 + length + end]
        arrays[key] = list(struct.unpack(f"<{len(part) // 2}{code}", part))
    arrays["shape"] = header["tables.lengths"]["shape"]
    return arrays


def round_to_24_bits(value: int) -> int:
    shift = max(0, value.bit_length() - 24)
    if not shift:
        return value
    quotient, rest = value >> shift, value & ((1 << shift) - 1)
    half = 1 << (shift - 1)
    if rest > half or (rest == half and quotient & 1):
        quotient += 1
    return quotient << shift


def cumulatives(weights: list[int]) -> list[int]:
    scale, total, left = 2**24 - len(weights), 0, []
    for k, weight in enumerate(weights):
        left.append((round_to_24_bits(total * scale) >> 16) + k)
        total += weight
    return [*left, 2**24]


class RangeDecoder:
    def __init__(self, payload: bytes) -> None:
        assert len(payload) % 4 == 0
        self.words = list(struct.unpack(f"<{len(payload) // 4}I", payload))
        self.lower, self.range, self.next = 0, MASK, 2
        self.point = self.word(0) << 32 | self.word(1)

    def word(self, index: int) -> int:
        return self.words[index] if index < len(self.words) else 0

    def symbol(self, left: list[int]) -> int:
        scale = self.range >> 24
        quantile = ((self.point - self.lower) & MASK) // scale
        assert quantile < 2**24
        low, high = 0, len(left) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if left[middle] <= quantile else (low, middle)
        self.lower = (self.lower + scale * left[low]) & MASK
        self.range = scale * (left[low + 1] - left[low])
        if self.range < 2**32:
            self.lower = self.lower << 32 & MASK
            self.range = self.range << 32
            self.point = (self.point << 32 | self.word(self.next)) & MASK
            self.next += 1
        return low


def symbols(parsed: Any, tables: dict[str, list[int]]) -> list[int]:
    """All symbols of a file parsed by Kaitai Struct, plane after plane."""
    stride = parsed.stride
    cells = -(-parsed.width.value // stride) * -(-parsed.height.value // stride)
    payload = next(s.payload for s in parsed.sections if int(s.kind) == 1)
    decoder = RangeDecoder(payload)
    _, channels = tables["shape"]
    first = parsed.level * channels
    start = sum(tables["lengths"][:first])
    out: list[int] = []
    for row in range(first, first + channels):
        length, low = tables["lengths"][row], tables["low"][row]
        if length == 1:
            out += [low] * cells
        else:
            left = cumulatives(tables["weights"][start : start + length])
            out += [low + decoder.symbol(left) for _ in range(cells)]
        start += length
    assert decoder.next >= len(decoder.words)
    assert decoder.range == MASK or (decoder.point - decoder.lower) & MASK < 2**33 - 1
    return out


def sha256_of_symbols(parsed: Any, tables: dict[str, list[int]]) -> str:
    values = symbols(parsed, tables)
    return hashlib.sha256(struct.pack(f"<{len(values)}h", *values)).hexdigest()
