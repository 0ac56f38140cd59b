"""What ``bkcodec info`` shows: the header of a file, without torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bkcodec.bundle import find_bundle, find_fingerprint, load_bundle, shipped_bundles
from bkcodec.config import Limits, level_to_quality
from bkcodec.container import Container, container_from_bytes
from bkcodec.errors import FormatError, InputError, UnsupportedError
from bkcodec.files import STREAM, printable, write_stream, write_whole

NO_PIXEL_LIMIT = Limits(max_pixels=0)  # nothing is decoded, so nothing is allocated


def info(data: bytes, verify: bool = False, model: str | None = None) -> dict[str, Any]:
    """The header's fields, file size and rate; with ``verify`` the SHA-256 of z's symbols too.

    The symbols are hashed as int16, little-endian, channel by channel, row by row. ``model`` names
    a bundle file for files whose bundle is not installed.

    Raises:
        FormatError, UnsupportedError, LimitError: as when decoding.
    """
    container = container_from_bytes(data, Limits() if verify else NO_PIXEL_LIMIT)
    values: dict[str, Any] = {
        "bytes": len(data), "width": container.width, "height": container.height,
        "bpp": round(8 * len(data) / (container.width * container.height), 6),
        "quality": level_to_quality(container.level), "fingerprint": container.fingerprint.hex(),
        "model": _model_name(container), "greyscale": container.greyscale,
        "z_shape": list(container.z_shape), "z_bytes": len(container.z),
        "timestep": container.timestep, "seed": container.seed,
        "level_map_bytes": len(container.level_map or b""),
    }  # fmt: skip
    for name in ("alpha", "icc", "exif", "xmp"):
        block = getattr(container, name)
        values[f"{name}_bytes"] = len(block) if block is not None else 0
    if verify:
        values["symbols_sha256"] = symbols_sha256(container, model)
    return values


def symbols_sha256(container: Container, model: str | None = None) -> str:
    """SHA-256 over the decoded symbols of a file."""
    from bkcodec.levelmap import levels_of

    if model is not None:
        bundle = load_bundle(find_bundle(model))
        if bundle.fingerprint != container.fingerprint:
            raise UnsupportedError(f"the file needs the bundle {container.fingerprint.hex()}")
    else:
        bundle = load_bundle(find_fingerprint(container.fingerprint))
    if container.stride != bundle.header["stride"]:
        raise FormatError(f"stride {container.stride}, the bundle's is {bundle.header['stride']}")
    coder = bundle.prior.at(levels_of(container))
    symbols = coder.decode(container.z, *container.z_shape)
    return hashlib.sha256(symbols.astype("<i2").tobytes()).hexdigest()


def extract(data: bytes, kind: str, output: str, force: bool) -> None:
    """Write one metadata block to a file, or to stdout for "-".

    Raises:
        InputError: the file has no such block, or the output exists.
    """
    block = getattr(container_from_bytes(data, NO_PIXEL_LIMIT), kind)
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
        lines.append(f"  levels    differ over the picture, {v['level_map_bytes']} bytes")
    if "symbols_sha256" in v:
        lines.append(f"  symbols   {v['symbols_sha256']}")
    return "\n".join(lines)


def _model_name(container: Container) -> str | None:
    for bundle in shipped_bundles():
        if bundle.fingerprint == container.fingerprint.hex():
            return bundle.name
    return None
