"""What a file says: its header, its symbols and their SHA-256. No PyTorch."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bkcodec import machine
from bkcodec.bundle import Bundle, bundle_for, bundle_with, load_bundle
from bkcodec.container import Container, container_from_bytes, read_path
from bkcodec.errors import FormatError, InputError
from bkcodec.files import STREAM, printable, write_stream, write_whole
from bkcodec.options import Limits, level_to_quality

if TYPE_CHECKING:
    from bkcodec.prior.levelmap import Levels
    from bkcodec.prior.tables import Symbols

SHOWN_BLOCKS = 2**14  # of a level map, at most: 67 megapixels of lite
SHOWN_COLUMNS = 16  # of a level map for people; a wider one is shown by means of squares
NO_PIXEL_LIMIT = Limits(max_pixels=0)  # nothing is decoded, so nothing is allocated


def info(
    file: bytes | bytearray | memoryview | str | os.PathLike[str],
    verify: bool = False,
    model: str | None = None,
) -> dict[str, Any]:
    """The header's fields, file size and rate; with ``verify`` the SHA-256 of z's symbols too.

    Where quality differs over the picture, ``quality_offsets`` says by how much, for each block
    of the level map, row by row; it is None for other files, and for more than 2^14 blocks.

    Args:
        file: a .bkc file, by path or as bytes.
        verify: decode the symbols.
        model: a bundle file, for files whose bundle is not installed.

    Raises:
        TypeError: neither path nor bytes.
        InputError, FormatError, UnsupportedError, LimitError: as when decoding.
    """
    if isinstance(file, str | os.PathLike):
        data = read_path(Path(file), NO_PIXEL_LIMIT)
    elif isinstance(file, bytes | bytearray | memoryview):
        data = bytes(file)
    else:
        raise TypeError(f"a file is a path or bytes, not {type(file).__name__}")
    container = container_from_bytes(data, Limits() if verify else NO_PIXEL_LIMIT)
    values: dict[str, Any] = {
        "bytes": len(data),
        "width": container.width,
        "height": container.height,
        "bpp": round(8 * len(data) / (container.width * container.height), 6),
        "quality": level_to_quality(container.level),
        "fingerprint": container.fingerprint.hex(),
        "model": _model_name(container),
        "greyscale": container.greyscale,
        "z_shape": list(container.z_shape),
        "z_bytes": len(container.z),
        "timestep": container.timestep,
        "seed": container.seed,
        "level_map_bytes": len(container.level_map or b""),
        "quality_offsets": _quality_offsets(container),
    }
    for name, block in {"alpha": container.alpha, **asdict(container.metadata)}.items():
        values[f"{name}_bytes"] = len(block or b"")
    if verify:
        bundle = load_bundle(bundle_for(container.fingerprint, model))
        values["symbols_sha256"] = symbols_sha256(read_symbols(container, bundle)[1])
    return values


def read_symbols(container: Container, bundle: Bundle) -> tuple[int | Levels, Symbols]:
    """What a file holds: its level, or that of each cell [h, w], and the symbols int16 [M, h, w].

    Raises:
        FormatError: the file does not fit the bundle, or its symbols are damaged.
        LimitError: not enough memory for its symbols.
    """
    from bkcodec.prior.levelmap import read_map

    machine.require(machine.estimate(bundle.prior.n_channels * math.prod(container.z_shape)))
    if container.stride != bundle.header["stride"]:
        raise FormatError(f"stride {container.stride}, the bundle's is {bundle.header['stride']}")
    levels: int | Levels = container.level
    if container.level_map is not None:
        levels = read_map(container.level_map, container.level, *container.z_shape)
    return levels, bundle.prior.at(levels).decode(container.z, *container.z_shape)


def symbols_sha256(symbols: Symbols) -> str:
    """SHA-256 of symbols as int16, little-endian, channel by channel, row by row."""
    return hashlib.sha256(symbols.astype("<i2").tobytes()).hexdigest()


def extract(data: bytes, kind: str, output: str, force: bool) -> None:
    """Write one metadata block to a file, or to stdout for "-".

    Raises:
        InputError: the file has no such block, or the output exists.
    """
    block = asdict(container_from_bytes(data, NO_PIXEL_LIMIT).metadata)[kind]
    if block is None:
        raise InputError(f"has no {kind} block")
    if output == STREAM:
        write_stream(block)
    else:
        write_whole(Path(output), block, force)


def text(name: str, values: dict[str, Any]) -> str:
    """The fields for people."""
    v = values
    extras = [k for k in ("alpha", "icc", "exif", "xmp") if v[f"{k}_bytes"]]
    lines = [
        printable(name),
        f"  size      {v['width']} x {v['height']}{' greyscale' if v['greyscale'] else ''}",
        f"  file      {v['bytes']:_} bytes, {v['bpp']:.4f} bpp".replace("_", " "),
        f"  quality   {v['quality']:g}",
        f"  model     {v['model'] or 'not installed'} ({v['fingerprint']})",
        f"  z         {v['z_shape'][1]} x {v['z_shape'][0]} cells, {v['z_bytes']} bytes",
        "  extras    " + (", ".join(f"{k} {v[f'{k}_bytes']} B" for k in extras) or "none"),
    ]
    if v["timestep"] is not None or v["seed"]:
        lines.append(f"  hints     timestep {v['timestep']}, seed {v['seed']}")
    if v["level_map_bytes"]:
        lines.append(f"  map       of {v['level_map_bytes']} bytes; points of quality, added:")
        lines += [f"            {row}" for row in drawn(v["quality_offsets"] or [])]
    if "symbols_sha256" in v:
        lines.append(f"  symbols   {v['symbols_sha256']}")
    return "\n".join(lines)


def drawn(offsets: Sequence[Sequence[float]]) -> list[str]:
    """A small picture of the offsets of blocks, as lines of text; a dot is no offset.

    Of a picture of more than 16 columns, each number is the mean of a square of blocks.
    """
    if not offsets:
        return []
    side = -(-len(offsets[0]) // SHOWN_COLUMNS)
    squares = [
        [
            [offset for row in offsets[top : top + side] for offset in row[left : left + side]]
            for left in range(0, len(offsets[0]), side)
        ]
        for top in range(0, len(offsets), side)
    ]
    means = [[sum(square) / len(square) for square in row] for row in squares]
    texts = [[f"{mean:+.0f}" if abs(mean) >= 0.5 else "." for mean in row] for row in means]
    width = max(len(text) for row in texts for text in row)
    return [" ".join(text.rjust(width) for text in row) for row in texts]


def _quality_offsets(container: Container) -> list[list[float]] | None:
    if container.level_map is None:
        return None
    from bkcodec.prior.levelmap import map_shape, read_offsets

    cells = container.z_shape
    if math.prod(map_shape(*cells)) > SHOWN_BLOCKS:
        return None
    offsets = read_offsets(container.level_map, container.level, *cells)
    return [[level_to_quality(offset) for offset in row] for row in offsets.tolist()]


def _model_name(container: Container) -> str | None:
    bundle = bundle_with(container.fingerprint.hex())
    return None if bundle is None else bundle.name
