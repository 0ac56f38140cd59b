"""A second decoder of z's symbols, written from formats/bkc-1.md alone.

It shares no code with the package: the container through Kaitai Struct's generated parser, the
range decoder in plain Python integers, the context prior with int64 dot products, or with plain
Python integers throughout.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MASK = 2**64 - 1
TYPES = {"U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "I32": "<i4"}

Arrays = dict[str, Any]
Dot = Callable[[Any, Any], Any]  # integers [n], integers [n, m] -> integers [m]


def read_safetensors(path: Path) -> Arrays:
    """The arrays of a bundle that say how symbols are coded."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    arrays = {}
    for key, entry in header.items():
        if key.startswith(("tables.", "prior.")):
            begin, end = entry["data_offsets"]
            part = data[8 + length + begin : 8 + length + end]
            arrays[key] = np.frombuffer(part, TYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def int64_dot(x: Any, weights: Any) -> Any:
    return np.asarray(x, np.int64) @ np.asarray(weights, np.int64)


def plain_dot(x: Any, weights: Any) -> list[int]:
    columns = zip(*np.asarray(weights).tolist(), strict=True)
    return [sum(int(a) * b for a, b in zip(x, column, strict=True) if a) for column in columns]


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
        self.advance(scale, left[low], left[low + 1])
        return low

    def number(self, n_bits: int) -> int:
        if not n_bits:
            return 0
        scale, width = self.range >> 24, 1 << (24 - n_bits)
        quantile = ((self.point - self.lower) & MASK) // scale
        assert quantile < 2**24
        self.advance(scale, quantile // width * width, (quantile // width + 1) * width)
        return quantile // width

    def advance(self, scale: int, left: int, right: int) -> None:
        self.lower = (self.lower + scale * left) & MASK
        self.range = scale * (right - left)
        if self.range < 2**32:
            self.lower = self.lower << 32 & MASK
            self.range = self.range << 32
            self.point = (self.point << 32 | self.word(self.next)) & MASK
            self.next += 1

    def finish(self) -> None:
        assert self.next >= len(self.words)
        assert self.range == MASK or (self.point - self.lower) & MASK < 2**33 - 1


class Grid:
    """A grid of tables: symbols and 24-bit cumulatives of the table in a row and column."""

    def __init__(self, arrays: Arrays, name: str) -> None:
        self.lengths, self.low = arrays[f"{name}.lengths"], arrays[f"{name}.low"]
        self.weights = arrays[f"{name}.weights"]
        self.starts = np.concatenate([[0], np.cumsum(self.lengths.ravel(), dtype=np.int64)])
        self.made: dict[int, tuple[int, int, list[int]]] = {}

    def table(self, row: int, column: int) -> tuple[int, int, list[int]]:
        """(lowest symbol, highest, cumulatives or [] if nothing is coded)."""
        index = row * self.lengths.shape[1] + column
        if index not in self.made:
            n, low = int(self.lengths[row, column]), int(self.low[row, column])
            weights = self.weights[self.starts[index] :][:n].tolist()
            self.made[index] = low, low + n - 1, cumulatives(weights) if n > 1 else []
        return self.made[index]


def symbols_of(
    payload: bytes, level: int, height: int, width: int, arrays: Arrays, dot: Dot = int64_dot
) -> Any:
    """Symbols [C, height, width]."""
    decoder, tables = RangeDecoder(payload), Grid(arrays, "tables")
    if "prior.groups" in arrays:
        z = Context(arrays, level, height, width, decoder, dot).decode(tables)
    else:
        z = np.zeros((tables.lengths.shape[1], height, width), np.int64)
        for channel in range(len(z)):
            low, _, left = tables.table(level, channel)
            for cell in np.ndindex(height, width):
                z[(channel, *cell)] = low + decoder.symbol(left) if left else low
    decoder.finish()
    return z


class Context:
    """The context prior at one level, decoding one z."""

    def __init__(
        self, arrays: Arrays, level: int, height: int, width: int, decoder: RangeDecoder, dot: Dot
    ) -> None:
        self.a = {k.removeprefix("prior."): v for k, v in arrays.items() if k[:6] == "prior."}
        self.level, self.shape, self.decoder, self.dot = level, (height, width), decoder, dot
        self.rows, self.excess = Grid(arrays, "prior.rows"), Grid(arrays, "prior.excess")
        self.n = int(self.a["order"].size)
        # Features with a border of zeros; symbols at their positions in coding order.
        self.features = np.zeros((height + 2, width + 2, self.n, 2), np.int64)
        self.z = np.zeros((self.n, height, width), np.int64)

    def decode(self, first: Grid) -> Any:
        begin = 0
        for g, (n, phases) in enumerate(zip(self.a["groups"].tolist(), self.a["phases"].tolist(),
                                            strict=True)):  # fmt: skip
            for p in range(phases):
                cells = [c for c in np.ndindex(*self.shape) if self.phase(c, phases) == p]
                if (g, p) == (0, 0):
                    self.first(first, cells, n)
                else:
                    self.part(g, p, cells, begin, n)
                for row, column in cells:
                    for j in range(begin, begin + n):
                        self.enter(j, row, column)
            begin += n
        out = np.zeros_like(self.z)
        out[self.a["order"].astype(int)] = self.z
        return out

    @staticmethod
    def phase(cell: tuple[int, ...], phases: int) -> int:
        row, column = cell[0] % 2, cell[1] % 2
        if phases == 4:
            return {(0, 0): 0, (1, 1): 1, (0, 1): 2, (1, 0): 3}[row, column]
        return (row + column) % 2 if phases == 2 else 0

    def enter(self, j: int, row: int, column: int) -> None:
        if not self.a["coded"][self.level, j]:
            return
        v, gain = int(self.z[j, row, column]), int(self.a["gain"][self.level, j])
        value = max(-127, min(127, (v * gain + 2**11) >> 12))
        self.features[row + 1, column + 1, j] = value, self.a["magnitude"][min(abs(v), 255)]

    def first(self, tables: Grid, cells: list[tuple[int, ...]], n: int) -> None:
        for j in range(n):
            low, _, left = tables.table(self.level, j)
            for row, column in cells:
                symbol = low + self.decoder.symbol(left) if left else low
                self.z[j, row, column] = symbol if self.a["coded"][self.level, j] else 0

    def layer(self, name: str, sums: Any) -> list[int]:
        bias, shift = self.a[f"{name}.bias"][self.level], self.a[f"{name}.shift"]
        return [
            (int(s) + int(b) + (1 << (int(k) - 1))) >> int(k)
            for s, b, k in zip(sums, bias, shift, strict=True)
        ]

    def outputs(self, g: int, p: int, row: int, column: int, begin: int, n: int) -> list[int]:
        window = self.features[row : row + 3, column : column + 3]
        sums = np.zeros(self.a[f"{g}.{p}.2.weight"].shape[0], np.int64)
        if g:
            sums = sums + self.dot(window[:, :, :begin].ravel(), self.a[f"{g}.shared"])
        if p:
            own = window[:, :, begin : begin + n].ravel()
            sums = sums + self.dot(own, self.a[f"{g}.{p}.1.weight"])
        h = [max(0, min(2047, x)) for x in self.layer(f"{g}.{p}.1", sums)]
        h = [
            max(0, min(2047, x))
            for x in self.layer(f"{g}.{p}.2", self.dot(h, self.a[f"{g}.{p}.2.weight"]))
        ]
        return self.layer(f"{g}.{p}.3", self.dot(h, self.a[f"{g}.{p}.3.weight"]))

    def part(self, g: int, p: int, cells: list[tuple[int, ...]], begin: int, n: int) -> None:
        positions = [j for j in range(begin, begin + n) if self.a["coded"][self.level, j]]
        if not positions:
            return
        scales, todo = self.rows.lengths.shape[0], []
        for number, (row, column) in enumerate(cells):
            out = self.outputs(g, p, row, column, begin, n)
            for j in positions:
                gain = int(self.a["mean_gain"][self.level, j])
                mean = (out[j - begin] * gain + 2**11) >> 12
                mean = max(-16 * 32767, min(16 * 32767, mean))
                scale = max(0, min(scales - 1, out[n + j - begin]))
                centre = (mean + 8) >> 4
                fraction = mean - 16 * centre + 8 if scale < self.a["fine"][0] else 8
                todo.append((scale * 16 + fraction, number, j, centre))
        todo.sort()
        edges = []
        for index, number, j, centre in todo:
            low, high, left = self.rows.table(index // 16, index % 16)
            residual = low + self.decoder.symbol(left) if left else low
            self.z[(j, *cells[number])] = centre + residual
            if left and residual in (low, high):
                edges.append((j, cells[number], residual == high))
        for j, cell, upper in edges:
            n_bits = self.decoder.symbol(self.excess.table(0, 0)[2])
            excess = (1 << n_bits) + self.decoder.number(n_bits) - 1
            self.z[(j, *cell)] += excess if upper else -excess
        assert np.abs(self.z).max() <= 32767


def symbols(parsed: Any, arrays: Arrays) -> Any:
    """All symbols of a file parsed by Kaitai Struct."""
    stride = parsed.stride
    height, width = -(-parsed.height.value // stride), -(-parsed.width.value // stride)
    payload = next(s.payload for s in parsed.sections if int(s.kind) == 1)
    return symbols_of(payload, parsed.level, height, width, arrays)


def sha256_of_symbols(parsed: Any, arrays: Arrays) -> str:
    return hashlib.sha256(symbols(parsed, arrays).astype("<i2").tobytes()).hexdigest()
