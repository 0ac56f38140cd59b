"""One measurement: one picture, one codec, one quality; and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bkcodec.errors import InputError, first_line
from bkcodec.files import write_whole

LARGEST = 1e9  # of figures in a cell
CELLS = "cells.jsonl"  # in the output folder: one line a finished cell, what --resume reads


@dataclass(slots=True)
class Cell:
    """What became of one picture.

    Attributes:
        codec, quality, image: which.
        width, height: of the picture in pixels.
        n_bytes: size of the file on disk; None where there is none (the ceiling).
        metrics: values by metric; None where one is not defined, or could not be measured.
        encode_seconds, decode_seconds: medians.
        bugs: "decode", "size" or "symbols": what the decoder got wrong.
        error: why there are no figures.
        unmeasured: metrics that failed, and why; no fault of the codec.
    """

    codec: str
    quality: float
    image: str
    width: int = 0
    height: int = 0
    n_bytes: int | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    bugs: list[str] = field(default_factory=list)
    error: str | None = None
    unmeasured: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, float, str]:
        """What the cell is of."""
        return self.codec, self.quality, self.image

    @property
    def failed(self) -> bool:
        """Whether the codec failed."""
        return self.error is not None or bool(self.bugs)

    @property
    def trouble(self) -> str:
        """What went wrong, for people; "" if nothing."""
        parts = [self.error] if self.error else [f"bug: {bug}" for bug in self.bugs]
        return "; ".join([*parts, *(f"{k}: {v}" for k, v in self.unmeasured.items())])

    @property
    def bpp(self) -> float | None:
        """Bits on disk over pixels of the original."""
        return None if self.n_bytes is None else 8 * self.n_bytes / (self.width * self.height)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields, bpp and compression ratio (24 bits per pixel over bpp)."""
        bpp = self.bpp
        return asdict(self) | {"bpp": bpp, "ratio": 24 / bpp if bpp else None}


def append(folder: Path, cell: Cell) -> None:
    """Enter a finished cell; a kill loses at most the line being written."""
    with (folder / CELLS).open("a", encoding="utf-8") as file:
        file.write(_line(cell))


def read(folder: Path) -> list[Cell]:
    """The finished cells of earlier runs, the newest of each; a torn last line is left out.

    Raises:
        InputError: a line in the middle that is not a cell.
    """
    path = folder / CELLS
    try:
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from error
    cells: dict[tuple[str, float, str], Cell] = {}
    for number, line in enumerate(lines, 1):
        try:
            cell = _checked(Cell(**json.loads(line)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            if number == len(lines):
                break
            reason = first_line(error)
            raise InputError(f"{path}: line {number} is damaged ({reason})") from error
        cells[cell.key] = cell
    return list(cells.values())


def _checked(cell: Cell) -> Cell:
    """A cell as it was read: its fields are what they say.

    Raises:
        ValueError: one is something else.
    """
    texts = (cell.codec, cell.image, cell.error or "", *cell.bugs, *cell.unmeasured.values())
    counts = (cell.width, cell.height, cell.n_bytes or 0)
    figures = (cell.quality, cell.encode_seconds, cell.decode_seconds, *cell.metrics.values())
    if not (
        all(isinstance(text, str) for text in texts)
        and all(type(count) is int and 0 <= count < 2**53 for count in counts)
        and all(isinstance(v, (float, int)) and abs(v) < LARGEST for v in figures if v is not None)
        and (not cell.n_bytes or cell.width * cell.height)
    ):
        raise ValueError("a field has a value that no measurement gives")
    return cell


def rewrite(folder: Path, cells: Iterable[Cell]) -> None:
    """Write the file again with these cells, without a torn line."""
    write_whole(folder / CELLS, "".join(map(_line, cells)).encode(), force=True)


def _line(cell: Cell) -> str:
    return json.dumps(asdict(cell)) + "\n"
