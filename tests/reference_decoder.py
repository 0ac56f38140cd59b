"""A second decoder of the symbols in .bkc files, in exact integers.

It is written from formats/bkc-1.md alone and shares no code with the package: standard library
and NumPy only. It shows that the specification is sufficient. What the ancillary sections hold is
not looked at: it does not touch the symbols.

    python tests/reference_decoder.py FILE.bkc... --bundle BUNDLE.safetensors...

prints the SHA-256 of the symbols (int16, channel by channel, row by row) and the name of each file.
"""

import argparse
import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

LEVELS = 201
MAX_SYMBOL = 32767
Z = 0x01  # the type of section z
DTYPES = dict(U8="u1", I8="i1", U16="<u2", I16="<i2", I32="<i4", F16="<f2", F32="<f4")

Arrays = dict[str, np.ndarray]
Integers = Sequence[int] | np.ndarray
Dot = Callable[[Integers, np.ndarray], Integers]
Cells = tuple[np.ndarray, np.ndarray]  # rows and columns
Shape = tuple[int, int]  # of z


def require(condition: bool | np.bool_, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


class File(NamedTuple):
    """A parsed file; ``sections`` maps types to payloads."""

    fingerprint: bytes
    width: int
    height: int
    stride: int
    level: int
    sections: dict[int, bytes]

    @property
    def z_shape(self) -> Shape:
        return -(-self.height // self.stride), -(-self.width // self.stride)


class Reader:
    """Takes integers and bytes from the front of ``data``; ValueError where they are missing."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        require(count <= len(self.data) - self.at, "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        value = 0
        for index in range(5):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                require(byte > 0 or index == 0, "varint not in its shortest form")
                require(value < 1 << 31, "varint too large")
                return value
        raise ValueError("varint too long")


def parse(data: bytes) -> File:
    """Reads the container of a file; ValueError if it is not a valid one of version 1."""
    require(data[:4] == b"\x8bBKC", "no .bkc file")
    require(data[4:5] == b"\x01", "unknown version")
    require(len(data) >= 17, "truncated")
    body, crc = data[:-4], int.from_bytes(data[-4:], "little")
    require(zlib.crc32(body) == crc, "wrong CRC")
    reader = Reader(body)
    fingerprint = reader.take(9)[5:]
    width, height = reader.varint(), reader.varint()
    stride, level = reader.take(2)
    require(width > 0 and height > 0 and stride > 0 and level < LEVELS, "field out of range")
    sections: dict[int, bytes] = {}
    while reader.at < len(reader.data):
        kind = reader.take(1)[0]
        require(kind == Z or kind >= 0x80, f"unknown critical section {kind:#04x}")
        require(kind not in sections, f"section {kind:#04x} occurs twice")
        sections[kind] = reader.take(reader.varint())
    require(Z in sections, "no section z")
    return File(fingerprint, width, height, stride, level, sections)


def read_bundle(path: Path) -> Arrays:
    """Reads the arrays of a bundle that decide how symbols are coded; ValueError if refused."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        if name.startswith(("tables.", "prior.")) or name == "net.quantiser.log_step":
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data[start + begin : start + end], DTYPES[entry["dtype"]])
            arrays[name] = values.reshape(entry["shape"])
    if "prior.order" in arrays:
        check_context(arrays)
    return arrays


def fingerprint(arrays: Arrays, stride: int) -> bytes:
    """The 4 bytes that name a bundle."""
    digest = hashlib.sha256(stride.to_bytes(4, "little"))
    for name in sorted(arrays, key=str.encode):
        values = arrays[name]
        digest.update(name.encode() + b"\0" + bytes([values.ndim]))
        digest.update(b"".join(size.to_bytes(4, "little") for size in values.shape))
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()[:4]


def networks(arrays: Arrays) -> Iterator[tuple[int, int, slice]]:
    """Group, phase and the group's positions, in coding order."""
    counts, phases = arrays["prior.groups"].tolist(), arrays["prior.phases"].tolist()
    for group, end in enumerate(accumulate(counts)):
        for phase in range(phases[group]):
            yield group, phase, slice(end - counts[group], end)


def check_context(arrays: Arrays) -> None:
    lengths, low = arrays["prior.rows.lengths"], arrays["prior.rows.low"]
    require(len(lengths) <= 4096, "too many scales")
    require(not low[lengths == 1].any(), "a table of one residual that is not 0")
    first, count = arrays["prior.excess.low"].item(), arrays["prior.excess.lengths"].item()
    require(first >= 0 and first + count <= 18, "an excess of too many bits")
    require(arrays["prior.excess.weights"].max() <= 46340, "a weight of excess too large")
    require(arrays["prior.magnitude"].max() <= 127, "a feature too large")
    for group, phase, _ in list(networks(arrays))[1:]:
        check_network(arrays, group, phase)


def check_network(arrays: Arrays, group: int, phase: int) -> None:
    for layer, peak in ((1, 127), (2, 2047), (3, 2047)):
        name = f"prior.{group}.{phase}.{layer}"
        total = np.abs(arrays[f"{name}.weight"].astype(np.int64)).sum(0)
        if layer == 1 and group > 0:
            total += np.abs(arrays[f"prior.{group}.shared"].astype(np.int64)).sum(0)
        shift = arrays[f"{name}.shift"].astype(np.int64)
        require(shift.min() >= 1 and shift.max() <= 23, "wrong shift")
        constant = np.abs(arrays[f"{name}.bias"] + (1 << (shift - 1)))
        require((constant + peak * total).max() < 1 << 24, "sums too large")


class Table(NamedTuple):
    low: int
    left: list[int]  # n + 1 cumulatives of 24 bits


class Grid:
    """The tables of a grid by their index, worked out on first use."""

    def __init__(self, arrays: Arrays, name: str) -> None:
        self.lengths = arrays[f"{name}.lengths"].ravel().tolist()
        self.low = arrays[f"{name}.low"].ravel().tolist()
        self.weights = arrays[f"{name}.weights"].tolist()
        self.starts = list(accumulate(self.lengths, initial=0))
        self.tables: dict[int, Table] = {}

    def __getitem__(self, index: int) -> Table:
        if index not in self.tables:
            start, length = self.starts[index], self.lengths[index]
            weights = self.weights[start : start + length]
            whole = sum(weights) == 1 << 16 and min(weights) > 0
            require(length == 1 or whole, "weights that are no table")
            self.tables[index] = Table(self.low[index], cumulatives(weights))
        return self.tables[index]


def cumulatives(weights: list[int]) -> list[int]:
    scale = (1 << 24) - len(weights)
    sums = accumulate(weights[:-1], initial=0)
    left = [(round_to_24_bits(c * scale) >> 16) + k for k, c in enumerate(sums)]
    return [*left, 1 << 24]


def round_to_24_bits(value: int) -> int:
    """Rounds to the nearest, ties to even."""
    unit = 1 << max(value.bit_length() - 24, 0)
    quotient, rest = divmod(value, unit)
    up = 2 * rest > unit or (2 * rest == unit and quotient % 2 == 1)
    return (quotient + up) * unit


class RangeDecoder:
    MASK = (1 << 64) - 1

    def __init__(self, payload: bytes) -> None:
        require(len(payload) % 4 == 0, "payload is no sequence of words")
        self.words = np.frombuffer(payload, "<u4").tolist()
        self.next, self.coded = 0, False
        self.lower, self.range = 0, self.MASK
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        self.next += 1
        return self.words[self.next - 1] if self.next <= len(self.words) else 0

    def quantile(self) -> int:
        quantile = ((self.point - self.lower) & self.MASK) // (self.range >> 24)
        require(quantile < 1 << 24, "point outside of the range")
        return quantile

    def advance(self, left: int, right: int) -> None:
        scale = self.range >> 24
        self.lower = (self.lower + scale * left) & self.MASK
        self.range = scale * (right - left)
        self.coded = True
        if self.range < 1 << 32:
            self.lower = (self.lower << 32) & self.MASK
            self.range <<= 32
            self.point = (self.point << 32) & self.MASK | self.word()

    def symbol(self, table: Table) -> int:
        if len(table.left) == 2:
            return table.low
        k = bisect_right(table.left, self.quantile()) - 1
        self.advance(table.left[k], table.left[k + 1])
        return table.low + k

    def bits(self, count: int) -> int:
        k = self.quantile() >> (24 - count)
        self.advance(k << (24 - count), (k + 1) << (24 - count))
        return k

    def finish(self) -> None:
        rest = (self.point - self.lower) & self.MASK
        is_end = self.next >= len(self.words) and rest < (1 << 33) - 1
        require(is_end if self.coded else not self.words, "no end that an encoder writes")


def int64_dot(x: Integers, weights: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.int64) @ np.asarray(weights, np.int64)


def plain_dot(x: Integers, weights: np.ndarray) -> list[int]:
    values, columns = np.asarray(x).tolist(), weights.T.tolist()
    return [sum(a * b for a, b in zip(values, column, strict=True)) for column in columns]


def decode_symbols(
    payload: bytes, level: int, height: int, width: int, arrays: Arrays, dot: Dot = int64_dot
) -> np.ndarray:
    """Decodes the symbols of z, int64 [C, height, width]; ValueError if the payload is refused."""
    decoder, shape = RangeDecoder(payload), (height, width)
    if "prior.order" in arrays:
        max_excesses = 16 * (len(payload) + 8)
        z = ContextDecoder(decoder, level, shape, arrays).decode(max_excesses, dot)
    else:
        tables = tables_of_level(arrays, level)
        symbols = [decoder.symbol(table) for table in tables for _ in range(height * width)]
        z = np.array(symbols, np.int64).reshape(-1, *shape)
    decoder.finish()
    require(np.abs(z).max() <= MAX_SYMBOL, "symbol out of range")
    return z


def tables_of_level(arrays: Arrays, level: int) -> list[Table]:
    grid, columns = Grid(arrays, "tables"), arrays["tables.lengths"].shape[1]
    return [grid[level * columns + column] for column in range(columns)]


def phase_cells(phases: int, phase: int, shape: Shape) -> Cells:
    """The cells of a phase, row by row."""
    row, column = np.indices(shape)
    of_four = np.where(row % 2 == column % 2, row % 2, 2 + row % 2)
    return np.nonzero((of_four if phases == 4 else (row + column) % phases) == phase)


class Layer:
    def __init__(self, arrays: Arrays, name: str, level: int) -> None:
        self.weight = arrays[f"{name}.weight"].astype(np.int64)
        self.shift = arrays[f"{name}.shift"].astype(np.int64)
        self.constant = arrays[f"{name}.bias"][level] + (1 << (self.shift - 1))


class ContextDecoder:
    """Decodes the phases of the context prior, one after the other."""

    def __init__(self, decoder: RangeDecoder, level: int, shape: Shape, arrays: Arrays) -> None:
        self.decoder, self.level, self.arrays = decoder, level, arrays
        self.rows, self.excess = Grid(arrays, "prior.rows"), Grid(arrays, "prior.excess")[0]
        self.scales, self.fine = len(arrays["prior.rows.lengths"]), arrays["prior.fine"].item()
        self.gain = arrays["prior.gain"][level].astype(np.int64)
        self.mean_gain = arrays["prior.mean_gain"][level].astype(np.int64)
        self.magnitude = arrays["prior.magnitude"].astype(np.int64)
        self.z = np.zeros((len(self.gain), *shape), np.int64)
        self.features = np.zeros((shape[0] + 2, shape[1] + 2, len(self.gain), 2), np.int64)

    def decode(self, max_excesses: int, dot: Dot) -> np.ndarray:
        self.excesses_left = max_excesses
        is_coded = self.arrays["prior.coded"][self.level] != 0
        for group, phase, own in networks(self.arrays):
            cells = phase_cells(self.arrays["prior.phases"][group], phase, self.z.shape[1:])
            coded = own.start + np.flatnonzero(is_coded[own])
            if not coded.size or not cells[0].size:
                continue
            if group == phase == 0:
                tables = tables_of_level(self.arrays, self.level)
                planes = [[self.decoder.symbol(tables[i]) for _ in cells[0]] for i in coded]
                symbols = np.array(planes, np.int64).T
            else:
                out = self.network(group, phase, own, cells, dot)
                symbols = self.phase(out[:, :, coded - own.start], self.mean_gain[coded])
            self.store(symbols, coded, cells)
        z = np.empty_like(self.z)
        z[self.arrays["prior.order"]] = self.z
        return z

    def network(self, group: int, phase: int, own: slice, cells: Cells, dot: Dot) -> np.ndarray:
        """Means and scales: [cells, 2, positions of the group]."""
        names = (f"prior.{group}.{phase}.{layer}" for layer in (1, 2, 3))
        one, two, three = (Layer(self.arrays, name, self.level) for name in names)
        shared = self.arrays[f"prior.{group}.shared"].astype(np.int64) if group else None
        outputs = []
        for row, column in zip(*cells, strict=True):
            window = self.features[row : row + 3, column : column + 3]
            t = one.constant
            if shared is not None:
                t = t + np.asarray(dot(window[:, :, : own.start].ravel(), shared))
            if phase > 0:
                t = t + np.asarray(dot(window[:, :, own].ravel(), one.weight))
            h = np.clip(t >> one.shift, 0, 2047)
            h = np.clip((two.constant + np.asarray(dot(h, two.weight))) >> two.shift, 0, 2047)
            outputs.append((three.constant + np.asarray(dot(h, three.weight))) >> three.shift)
        return np.array(outputs).reshape(len(outputs), 2, -1)

    def phase(self, out: np.ndarray, mean_gain: np.ndarray) -> np.ndarray:
        """Decodes the symbols [cells, coded positions] whose means and scales are ``out``."""
        mean = (out[:, 0] * mean_gain + (1 << 11)) >> 12
        mean = np.clip(mean, -16 * MAX_SYMBOL, 16 * MAX_SYMBOL)
        scale = np.clip(out[:, 1], 0, self.scales - 1)
        centre = (mean + 8) >> 4
        fraction = np.where(scale < self.fine, mean - 16 * centre + 8, 8)
        index = (16 * scale + fraction).ravel()
        order = np.argsort(index, kind="stable")
        tables = [self.rows[i] for i in index[order].tolist()]
        residuals = [self.decoder.symbol(table) for table in tables]
        for at, table in enumerate(tables):
            residuals[at] += self.signed_excess(residuals[at], table)
        symbols = centre.ravel()
        symbols[order] += np.array(residuals)
        return symbols.reshape(mean.shape)

    def signed_excess(self, residual: int, table: Table) -> int:
        last = len(table.left) - 2
        if last == 0 or residual - table.low not in (0, last):
            return 0
        require(self.excesses_left > 0, "too many excesses")
        self.excesses_left -= 1
        count = self.decoder.symbol(self.excess)
        excess = (1 << count) - 1 + (self.decoder.bits(count) if count else 0)
        return excess if residual > table.low else -excess

    def store(self, symbols: np.ndarray, coded: np.ndarray, cells: Cells) -> None:
        row, column = (indices[:, None] for indices in cells)
        self.z[coded[None], row, column] = symbols
        value = np.clip((symbols * self.gain[coded] + (1 << 11)) >> 12, -127, 127)
        magnitude = self.magnitude[np.minimum(np.abs(symbols), 255)]
        self.features[row + 1, column + 1, coded[None]] = np.stack([value, magnitude], -1)


def symbols_sha256(data: bytes, bundles: dict[bytes, Arrays]) -> str:
    """SHA-256 of the symbols of a file; ``bundles`` maps fingerprints to arrays."""
    file = parse(data)
    require(file.fingerprint in bundles, f"no bundle {file.fingerprint.hex()}")
    arrays = bundles[file.fingerprint]
    require(fingerprint(arrays, file.stride) == file.fingerprint, "the stride is not the bundle's")
    symbols = decode_symbols(file.sections[Z], file.level, *file.z_shape, arrays)
    return hashlib.sha256(symbols.astype("<i2").tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--bundle", action="append", required=True, type=Path)
    options = parser.parse_args()
    loaded = [read_bundle(path) for path in options.bundle]
    for path in options.files:
        data = path.read_bytes()
        bundles = {fingerprint(arrays, parse(data).stride): arrays for arrays in loaded}
        print(symbols_sha256(data, bundles), "", path.name, flush=True)


if __name__ == "__main__":
    main()
