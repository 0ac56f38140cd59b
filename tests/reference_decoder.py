"""A second decoder of .bkc files, in exact integers: from bytes to pixels, without metadata.

It is written from formats/bkc-1.md and formats/networks-1.md alone, to show that they suffice, and
shares no code with the package: standard library and NumPy only.

    python tests/reference_decoder.py FILE.bkc... --bundle BUNDLE.safetensors...

prints the SHA-256 of the symbols (int16, channel by channel, row by row), that of the pixels (row
by row; none if the bundle has no integer networks) and the name of each file.
"""

import argparse
import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from io import BytesIO
from itertools import accumulate, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import reference_networks

LEVELS = 201
MAX_SYMBOL = 32767
MARGIN = 4  # cells around z: the farthest reach of a window
Z, MAP, HINTS, LAYOUT = 0x01, 0x02, 0x85, 0x86  # types of sections
DTYPES = dict(
    U8="u1", I8="i1", U16="<u2", I16="<i2", I32="<i4", F16="<f2", F32="<f4", F64="<f8", I64="<i8"
)

Array = np.ndarray
Arrays = dict[str, Array]
Dot = Callable[[Array, Array], Sequence[int] | Array]
Shape = Cell = tuple[int, int]  # rows and columns of z; a row and a column
Table = tuple[int, list[int]]  # the lowest symbol, n + 1 cumulatives of 24 bits
Levels = int | Array  # that of all cells, or each one's [rows, columns]


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


class Reader(BytesIO):
    """Takes integers and bytes from the front; ValueError where they are missing."""

    def take(self, count: int) -> bytes:
        taken = self.read(count)
        require(len(taken) == count, "truncated")
        return taken

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
    while head := reader.read(1):
        kind = head[0]
        require(kind in (Z, MAP) or kind >= 0x80, f"unknown critical section {kind:#04x}")
        require(kind not in sections, f"section {kind:#04x} occurs twice")
        sections[kind] = reader.take(reader.varint())
    require(Z in sections, "no section z")
    return File(fingerprint, width, height, stride, level, sections)


def read_bundle(path: Path) -> Arrays:
    """Reads the arrays that decide about symbols and pixels; ValueError if refused."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        if name.startswith(("tables.", "prior.", "int.")) or name == "net.quantiser.log_step":
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
        if name.startswith("int."):
            continue
        values = arrays[name]
        shape = bytes([values.ndim]) + np.array(values.shape, "<u4").tobytes()
        digest.update(name.encode() + b"\0" + shape + values.tobytes())  # read as little-endian
    return digest.digest()[:4]


def networks(arrays: Arrays) -> Iterator[tuple[int, int, int, slice]]:
    """Group, its number of phases, phase and the group's positions, in coding order."""
    counts, phases = arrays["prior.groups"].tolist(), arrays["prior.phases"].tolist()
    for group, end in enumerate(accumulate(counts)):
        for phase in range(phases[group]):
            yield group, phases[group], phase, slice(end - counts[group], end)


def check_context(arrays: Arrays) -> None:
    lengths, low = arrays["prior.rows.lengths"], arrays["prior.rows.low"]
    require(len(lengths) <= 4095, "too many scales")
    require(not low[lengths == 1].any(), "a table of one residual that is not 0")
    first, count = arrays["prior.excess.low"].item(), arrays["prior.excess.lengths"].item()
    require(first >= 0 and first + count <= 18, "an excess of too many bits")
    require(arrays["prior.excess.weights"].max() <= 46340, "a weight of excess too large")
    magnitude, phases = arrays["prior.magnitude"], arrays["prior.phases"]
    require(magnitude[0] == 0 and magnitude.max() <= 127, "wrong magnitudes")
    require(np.isin(phases, (1, 2, 4, 7, 10)).all(), "a number of phases that is not known")
    layers = (1, 127), (2, 2047), (3, 2047)  # and the largest of their inputs
    for (group, _, phase, _), (layer, peak) in product(list(networks(arrays))[1:], layers):
        name = f"prior.{group}.{phase}.{layer}"
        total = np.abs(arrays[f"{name}.weight"].astype(np.int64)).sum(0)
        if layer == 1 and group > 0:
            total += np.abs(arrays[f"prior.{group}.shared"].astype(np.int64)).sum(0)
        shift = arrays[f"{name}.shift"].astype(np.int64)
        require(shift.min() >= 1 and shift.max() <= 23, "wrong shift")
        constant = np.abs(arrays[f"{name}.bias"] + (1 << (shift - 1)))
        require((constant + peak * total).max() < 1 << 24, "sums too large")


def grid(arrays: Arrays, name: str) -> Callable[[int], Table]:
    """The tables of a grid by their index, worked out on first use."""
    parts = (arrays[f"{name}.{part}"].ravel().tolist() for part in ("lengths", "low", "weights"))
    lengths, low, weights = parts
    starts = list(accumulate(lengths, initial=0))

    @cache
    def table(index: int) -> Table:
        own = weights[starts[index] : starts[index + 1]]
        require(len(own) == 1 or (sum(own) == 1 << 16 and min(own) > 0), "weights of no table")
        return low[index], cumulatives(own)

    return table


def cumulatives(weights: list[int]) -> list[int]:
    left = []
    for k, total in enumerate(accumulate(weights[:-1], initial=0)):
        value = total * ((1 << 24) - len(weights))
        unit = 1 << max(value.bit_length() - 24, 0)
        quotient, rest = divmod(value, unit)
        quotient += 2 * rest + quotient % 2 > unit  # rounds to the nearest, ties to even
        left.append((quotient * unit >> 16) + k)
    return [*left, 1 << 24]


class RangeDecoder:
    MASK = (1 << 64) - 1

    def __init__(self, payload: bytes) -> None:
        require(len(payload) % 4 == 0, "payload is no sequence of words")
        self.words = np.frombuffer(payload, "<u4").tolist()
        self.next, self.lower, self.range = 0, 0, self.MASK
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
        if self.range < 1 << 32:
            self.lower = (self.lower << 32) & self.MASK
            self.range <<= 32
            self.point = (self.point << 32) & self.MASK | self.word()

    def symbol(self, table: Table) -> int:
        low, left = table
        if len(left) == 2:
            return low
        k = bisect_right(left, self.quantile()) - 1
        self.advance(left[k], left[k + 1])
        return low + k

    def bits(self, count: int) -> int:
        if count == 0:
            return 0
        k = self.quantile() >> (24 - count)
        self.advance(k << (24 - count), (k + 1) << (24 - count))
        return k

    def finish(self) -> None:
        rest = (self.point - self.lower) & self.MASK
        is_end = self.next >= len(self.words) and rest < (1 << 33) - 1
        was_used = self.range < self.MASK  # each symbol coded makes it smaller than this
        require(is_end if was_used else not self.words, "no end that an encoder writes")


def int64_dot(x: Array, weights: Array) -> Array:
    return np.asarray(x, np.int64) @ np.asarray(weights, np.int64)


def plain_dot(x: Array, weights: Array) -> list[int]:
    values, columns = x.tolist(), weights.T.tolist()
    return [sum(a * b for a, b in zip(values, column, strict=True)) for column in columns]


def decode_levels(payload: bytes, level: int, shape: Shape) -> Array:
    """Decodes the level of each cell of z, int64 [rows, columns]; ValueError if refused."""
    decoder, counts = RangeDecoder(payload), [[16] + [1] * 18 for _ in range(2)]
    offsets = np.zeros([1 + -(-size // 4) for size in shape], np.int64)  # row and column 0 stay 0
    for row, column in np.ndindex(offsets[1:, 1:].shape):
        (corner, above), left = offsets[row, column : column + 2], offsets[row + 1, column]
        expected = sorted((left, above, left + above - corner))[1]  # left beside zeros, or above
        own = counts[min(row, column) > 0 and not left == above == corner]
        weights = [1 + count * ((1 << 16) - 19) // sum(own) for count in own]
        weights[weights.index(max(weights))] += (1 << 16) - sum(weights)
        kind = decoder.symbol((0, cumulatives(weights)))
        own[kind] += 16
        bits = (kind + 1) // 2
        size = 1 << (bits - 1) | decoder.bits(bits - 1) if bits else 0
        offsets[row + 1, column + 1] = expected + (size if kind % 2 else -size)
    decoder.finish()
    levels = level + offsets[1:, 1:]
    require(levels.min() >= 0 and levels.max() < LEVELS, "level out of range")
    return levels.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]


def decode_symbols(
    payload: bytes, level: Levels, height: int, width: int, arrays: Arrays, dot: Dot = int64_dot
) -> Array:
    """Decodes the symbols of z, int64 [C, height, width]; ValueError if the payload is refused."""
    decoder = RangeDecoder(payload)
    levels = np.broadcast_to(np.asarray(level, np.int64), (height, width))
    if "prior.order" in arrays:
        z = ContextDecoder(decoder, levels, arrays, dot).decode(16 * (len(payload) + 8))
    else:
        coded = np.ones((levels.size, arrays["tables.lengths"].shape[1]), bool)
        z = decode_by_level(decoder, levels.ravel(), coded, arrays).T.reshape(-1, height, width)
    decoder.finish()
    require(np.abs(z).max() <= MAX_SYMBOL, "symbol out of range")
    return z


def decode_by_level(decoder: RangeDecoder, levels: Array, coded: Array, arrays: Arrays) -> Array:
    """Decodes symbols [cells, columns of the grid ``tables``]; those not ``coded`` are 0."""
    table, symbols = grid(arrays, "tables"), np.zeros(coded.shape, np.int64)
    columns, by_level = coded.shape[1], np.argsort(levels, kind="stable")
    for column, cell in product(range(columns), by_level.tolist()):
        if coded[cell, column]:
            symbols[cell, column] = decoder.symbol(table(levels[cell] * columns + column))
    return symbols


def phase_of(phases: int, row: Array, column: Array) -> Array:
    """The phase of each cell, if there are 1, 2, 4, 7 or 10 of them."""
    if phases <= 2:
        return (row + column) % phases
    of_four = np.where(row % 2 == column % 2, row % 2, 2 + row % 2)
    of_even = phase_of(phases - 3, row // 2, column // 2)
    return np.where(of_four == 0, of_even, phases - 4 + of_four)


class ContextDecoder:
    """Decodes the phases of the context prior, one after the other."""

    def __init__(self, decoder: RangeDecoder, levels: Array, arrays: Arrays, dot: Dot) -> None:
        self.decoder, self.levels, self.arrays, self.dot = decoder, levels, arrays, dot
        self.rows, self.excess = grid(arrays, "prior.rows"), grid(arrays, "prior.excess")(0)
        self.prior = {k[6:]: v.astype(np.int64) for k, v in arrays.items() if k[:6] == "prior."}
        self.z = np.zeros((len(self.prior["order"]), *levels.shape), np.int64)
        height, width = (size + 2 * MARGIN for size in levels.shape)
        self.features = np.zeros((height, width, len(self.z), 2), np.int64)

    def decode(self, max_excesses: int) -> Array:
        self.excesses_left = max_excesses
        for group, phases, phase, own in networks(self.arrays):
            row, column = np.nonzero(phase_of(phases, *np.indices(self.levels.shape)) == phase)
            levels = self.levels[row, column]
            coded = self.prior["coded"][levels, own] != 0  # [cells, positions of the group]
            if not coded.any():
                continue
            if group == phase == 0:
                symbols = decode_by_level(self.decoder, levels, coded, self.arrays)
            else:
                reach = 1 << (phases - 1 - phase) // 3  # doubles with every three phases to come
                out = self.network(group, phase, own, reach, list(zip(row, column, strict=True)))
                symbols = self.phase(out, coded, self.prior["mean_gain"][levels, own])
            self.z[self.prior["order"][own], row[:, None], column[:, None]] = symbols
            gain = self.prior["gain"][levels, own]
            value = np.clip((symbols * gain + (1 << 11)) >> 12, -127, 127)
            magnitude = self.prior["magnitude"][np.minimum(np.abs(symbols), 255)]
            self.features[row + MARGIN, column + MARGIN, own] = np.stack([value, magnitude], -1)
        return self.z

    def network(self, group: int, phase: int, own: slice, reach: int, cells: list[Cell]) -> Array:
        """Means and scales: [cells, 2, positions of the group]."""
        parts = "weight", "bias", "shift"
        layers = [[self.prior[f"{group}.{phase}.{i}.{part}"] for part in parts] for i in (1, 2, 3)]
        if group > 0:
            layers[0][0] = np.concatenate([self.prior[f"{group}.shared"], layers[0][0]])
        outputs = []
        for cell in cells:
            x = self.window(cell, 1, slice(own.start))
            if phase > 0:
                x = np.append(x, self.window(cell, reach, own))
            for weight, bias, shift in layers:
                sums = np.asarray(self.dot(x, weight)) + bias[self.levels[cell]]
                out = (sums + (1 << (shift - 1))) >> shift
                x = np.clip(out, 0, 2047)
            outputs.append(out)
        return np.array(outputs).reshape(len(cells), 2, -1)

    def window(self, cell: Cell, reach: int, positions: slice) -> Array:
        rows, columns = (MARGIN + at + np.array([-reach, 0, reach]) for at in cell)
        return self.features[np.ix_(rows, columns)][:, :, positions].ravel()

    def phase(self, out: Array, coded: Array, mean_gain: Array) -> Array:
        """Decodes the ``coded`` symbols [cells, positions] of these means and scales."""
        mean = np.clip((out[:, 0] * mean_gain + (1 << 11)) >> 12, -16 * MAX_SYMBOL, 16 * MAX_SYMBOL)
        scale = np.clip(out[:, 1], 0, len(self.prior["rows.lengths"]) - 1)
        centre = (mean + 8) >> 4
        fraction = np.where(scale < self.prior["fine"], mean - 16 * centre + 8, 8)
        index, order = 16 * scale + fraction, np.flatnonzero(coded)
        order = order[np.argsort(index.flat[order], kind="stable")]
        tables = [self.rows(i) for i in index.flat[order].tolist()]
        residuals = [self.decoder.symbol(table) for table in tables]
        for at, (low, left) in enumerate(tables):
            last = len(left) - 2
            if last == 0 or residuals[at] - low not in (0, last):
                continue
            require(self.excesses_left > 0, "too many excesses")
            self.excesses_left -= 1
            count = self.decoder.symbol(self.excess)
            excess = (1 << count) - 1 + self.decoder.bits(count)
            residuals[at] += excess if residuals[at] > low else -excess
        symbols = np.where(coded, centre, 0)
        symbols.flat[order] += np.array(residuals)
        return symbols


def symbols_sha256(data: bytes, bundles: dict[bytes, Arrays]) -> str:
    """SHA-256 of the symbols of a file; ``bundles`` maps fingerprints to arrays."""
    _, _, symbols = decode(data, bundles)
    return hashlib.sha256(symbols.astype("<i2").tobytes()).hexdigest()


def pixels_sha256(data: bytes, bundles: dict[bytes, Arrays]) -> str:
    """SHA-256 of the pixels of a file, decoded in one step; likewise."""
    file, level, symbols = decode(data, bundles)
    arrays = {
        name.removeprefix("int."): array
        for name, array in bundles[file.fingerprint].items()
        if name.startswith("int.")
    }
    require(bool(arrays), "a bundle without integer networks")
    hint = Reader(file.sections[HINTS]).varint() if HINTS in file.sections else 0
    size = file.width, file.height
    pixels = reference_networks.synthesise(arrays, symbols, level, size, hint - 1 if hint else None)
    if file.sections.get(LAYOUT) == b"\1":
        pixels = (pixels @ np.array([19595, 38470, 7471]) + 32768) >> 16
    return hashlib.sha256(pixels.astype(np.uint8).tobytes()).hexdigest()


def decode(data: bytes, bundles: dict[bytes, Arrays]) -> tuple[File, Levels, Array]:
    """A file, its levels and its symbols [C, h, w]."""
    file = parse(data)
    require(file.fingerprint in bundles, f"no bundle {file.fingerprint.hex()}")
    arrays = bundles[file.fingerprint]
    require(fingerprint(arrays, file.stride) == file.fingerprint, "the stride is not the bundle's")
    level: Levels = file.level
    if MAP in file.sections:
        level = decode_levels(file.sections[MAP], file.level, file.z_shape)
    return file, level, decode_symbols(file.sections[Z], level, *file.z_shape, arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--bundle", action="append", required=True, type=Path)
    options = parser.parse_args()
    loaded = [read_bundle(path) for path in options.bundle]
    for path in options.files:
        data = path.read_bytes()
        bundles = {fingerprint(arrays, parse(data).stride): arrays for arrays in loaded}
        try:
            pixels = pixels_sha256(data, bundles)
        except ValueError:
            pixels = "-"
        print(symbols_sha256(data, bundles), pixels, path.name, flush=True)


if __name__ == "__main__":
    main()
