"""What is fuzzed: each target takes any bytes and lets nothing but our own errors through.

``run.py`` feeds them from atheris; ``tests/test_fuzz.py`` from the corpus.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image

import bkcodec.pillow_plugin
from bkcodec import bundle, inspection
from bkcodec.container import MAGIC, container_from_bytes, container_to_bytes
from bkcodec.engine.reference import ReferenceNetwork
from bkcodec.engine.runtime import Runtime
from bkcodec.errors import BkcError, UnsupportedError
from bkcodec.image.picture import Picture, rows_from_picture
from bkcodec.image.writing import FORMATS, save_rows
from bkcodec.options import LEVELS, MAX_LEVEL, Limits
from bkcodec.prior.levelmap import Levels, read_map
from tests.attacks.common import section

LIMITS = Limits(max_pixels=2**16, max_file_bytes=2**20, max_metadata_bytes=2**16)
FEW_PIXELS = 2**12  # are decoded to pictures: networks are slow
PILLOWS_OWN = (OSError, SyntaxError)  # what Image.open raises on a file that is none
METADATA = struct.Struct("<BBHH")  # format, raw sections or not, lengths of ICC and EXIF
_FIXED = struct.Struct("<4sB4s")


def _with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def container(data: bytes) -> None:
    """The container as it is and behind a right CRC; what is accepted is written back the same."""
    for candidate in (data, _with_crc(data), _with_crc(MAGIC + b"\1" + data)):
        try:
            parsed = container_from_bytes(candidate, LIMITS)
        except BkcError:
            continue
        again = container_from_bytes(container_to_bytes(parsed), LIMITS)
        assert again == parsed


def entropy(data: bytes) -> None:
    """The entropy decoder of both shipped priors: level, size, perhaps a level map, string."""
    if len(data) < 5:
        return
    shipped, string = bundle.shipped_bundles()[data[0] % 2], data[4:]
    levels: int | Levels = data[1] % LEVELS
    height, width = 1 + data[2] % 8, 1 + data[3] % 8
    try:
        if data[0] & 2:
            end = 1 + data[4]
            levels, string = read_map(string[1:end], data[1] % LEVELS, height, width), string[end:]
        prior = bundle.load_bundle(shipped.path).prior.at(levels)
        symbols = prior.decode(string, height, width)
    except BkcError:
        return
    string, kept = prior.encode(symbols)
    assert np.array_equal(kept, symbols)
    assert np.array_equal(prior.decode(string, height, width), symbols)


def metadata(data: bytes) -> None:
    """ICC, EXIF and XMP sections of a file, down to the picture that they are written into.

    The input says which format, whether the sections are given as they are or unpacked, and where
    one ends.
    """
    if len(data) < METADATA.size:
        return
    which, raw, *lengths = METADATA.unpack_from(data)
    extension, rest = list(FORMATS)[which % len(FORMATS)], data[METADATA.size :]
    head = _FIXED.pack(MAGIC, 1, bytes(4)) + bytes([1, 1, 16, 0, 1, 0])
    for kind, length in zip((0x82, 0x83, 0x84), (*lengths, len(data)), strict=True):
        part, rest = rest[:length], rest[length:]
        if part:
            part = part if raw % 2 else b"\0" + part
            head += section(kind, part)
    picture = Picture(np.zeros((2, 3, 3), np.uint8))
    try:
        parsed = container_from_bytes(_with_crc(head), LIMITS)
        picture = replace(picture, metadata=parsed.metadata)
        save_rows(rows_from_picture(picture), io.BytesIO(), extension)
    except BkcError:
        pass


def pillow(data: bytes) -> None:
    """``Image.open`` through the plugin, and ``load`` where there are few pixels."""
    for candidate in (data, _with_crc(data)):
        try:
            image = Image.open(io.BytesIO(candidate), formats=["BKC"])
        except PILLOWS_OWN:
            continue
        if image.width * image.height <= FEW_PIXELS:
            try:
                image.load()
            except BkcError:
                continue


def hostile_bundle(data: bytes) -> None:
    """A bundle file: refused, or its prior works and its integer networks can."""
    try:
        loaded = bundle._parse(Path("fuzzed.safetensors"), data)
        loaded.prior.level(MAX_LEVEL).decode(b"", 2, 2)
        if loaded.integers:
            Runtime(loaded.integers)
    except BkcError:
        pass


EDIT = struct.Struct("<BBHi")  # of which array, how, where, with what


@cache
def _integers() -> dict[str, np.ndarray]:
    """Arrays of tiny integer networks, see ``seeds``."""
    from safetensors.numpy import load_file

    return load_file(Path(__file__).with_name("integers.safetensors"))


def _edited(array: np.ndarray, how: int, where: int, value: int) -> np.ndarray | None:
    """One change of an array, of its numbers, its type or its shape; None = away with it."""
    kinds = (np.int8, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64)
    match how % 8:
        case 0 | 1 | 2:
            changed = array.copy()
            if changed.size:
                number = float("nan") if array.dtype.kind == "f" and value == -1 else value
                changed.ravel()[where % changed.size] = np.array(number).astype(array.dtype)
            return changed
        case 3:
            return array * np.array(value).astype(array.dtype)
        case 4:
            return array.astype(kinds[value % len(kinds)])
        case 5:
            return array[: where % (len(array) + 1)] if array.ndim else array
        case 6:
            return array.T if value % 2 else array.ravel()
        case _:
            return None


def integers(data: bytes) -> None:
    """Integer networks of odd arrays: refused, or they code a picture without a complaint."""
    arrays, names = dict(_integers()), sorted(_integers())
    for which, how, where, value in EDIT.iter_unpack(data[: len(data) // EDIT.size * EDIT.size]):
        name = names[which % len(names)]
        if name in arrays:
            changed = _edited(arrays.pop(name), how, where, value)
            arrays |= {} if changed is None else {name: changed}
    with patch("bkcodec.engine.runtime.open_network", lambda program, *_, **__: _Slow(program)):
        try:
            networks = Runtime(arrays)
            _, z = networks.analyse(np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3))
            symbols = z.clip(-9, 9).astype(np.int16)
            pixels = networks.synthesise(symbols, MAX_LEVEL, None)
            pixels = networks.synthesise(symbols, np.uint8([[0, 7, 200], [9, 9, 0]]), 0)
        except UnsupportedError:
            return
    assert pixels.shape == (32, 48, 3) and pixels.dtype == np.uint8


class _Slow(ReferenceNetwork):
    """Asserts that numbers stay where they are exact."""

    def run(self, maps: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs = super().run(maps)
        assert all(np.abs(x).max(initial=0) < 2**24 for x in outputs)
        return outputs


def info(data: bytes) -> None:
    """``bkcodec info``, with and without --verify, and what it prints."""
    for candidate in (data, _with_crc(data)):
        for verify in (False, True):
            try:
                values = inspection.info(candidate, verify)
            except BkcError:
                continue
            text = inspection.text("\x1b[2J\n" + candidate[:8].decode("latin-1"), values)
            assert all(line.isprintable() for line in text.splitlines())


TARGETS: dict[str, Callable[[bytes], None]] = {
    "container": container,
    "entropy": entropy,
    "metadata": metadata,
    "pillow": pillow,
    "bundle": hostile_bundle,
    "integers": integers,
    "info": info,
}


def run(name: str, data: bytes) -> None:
    """One execution of a target; warnings of libraries on odd input are not findings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TARGETS[name](data)


assert bkcodec.pillow_plugin  # imported for what it registers
