"""Everything a finished benchmark knows, and its files: JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bkcodec import __version__
from bkcodec.bench.cells import Cell
from bkcodec.bench.codecs import Candidate
from bkcodec.bench.dataset import Dataset
from bkcodec.bench.environment import environment
from bkcodec.bench.metrics import Metric
from bkcodec.bench.report.published import Curve
from bkcodec.bench.report.summary import BdRate, Point, compressai_results
from bkcodec.files import printable, write_whole

FORMULA = ("=", "+", "-", "@")  # how one begins in a spreadsheet; tabs are not printable


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished benchmark.

    Attributes:
        dataset_name: of its folder.
        bd_rates: of the tested bundles against all others.
        matrix: BD-rates of every codec against every other.
        statistics: load times in seconds and memory peaks in bytes, by codec.
        overlays: published curves to show beside the measured ones.
        settings: repetitions, jobs and the like.
    """

    dataset_name: str
    dataset: Dataset
    candidates: Sequence[Candidate]
    metrics: Sequence[Metric]
    cells: Sequence[Cell]
    points: Sequence[Point]
    bd_rates: Sequence[BdRate]
    matrix: Sequence[BdRate]
    statistics: dict[str, dict[str, float]]
    overlays: Sequence[Curve]
    settings: dict[str, Any]

    @property
    def n_failed(self) -> int:
        """Cells in which something went wrong."""
        return sum(bool(cell.trouble) for cell in self.cells)

    def results(self) -> dict[str, Any]:
        """CompressAI's schema of the first bundle; "codecs" has all codecs in this schema."""
        entries = [
            {
                "name": c.name,
                "description": c.note,
                "results": compressai_results(self.points, c.name, self.metrics),
            }
            for c in self.candidates
            if c.kind != "ceiling"
        ]
        return {**entries[0], "codecs": entries}

    def detailed(self) -> dict[str, Any]:
        """All of it."""
        return {
            "version": __version__,
            "dataset": self.dataset_name,
            "environment": environment(),
            "settings": self.settings,
            "images": [
                {
                    "name": p.name,
                    "width": p.width,
                    "height": p.height,
                    "sha256": p.digest,
                    "note": p.note,
                }
                for p in self.dataset.photos
            ],
            "skipped": [{"name": name, "reason": why} for name, why in self.dataset.skipped],
            "codecs": [
                c.as_dict() | {"statistics": self.statistics.get(c.name, {})}
                for c in self.candidates
            ],
            "metrics": [
                {
                    "name": m.name,
                    "label": m.label,
                    "higher_is_better": m.higher_is_better,
                    "scale": m.scale,
                }
                for m in self.metrics
            ],
            "points": [asdict(p) for p in self.points],
            "bd_rates": [asdict(r) for r in self.bd_rates],
            "cells": [c.as_dict() for c in self.cells],
        }

    def csv(self) -> str:
        """One line a cell."""
        out = io.StringIO()
        names = [m.name for m in self.metrics]
        writer = csv.writer(out, lineterminator="\n")
        head = ["codec", "quality", "image", "width", "height", "bytes", "bpp", "ratio", *names]
        writer.writerow([*head, "encode_seconds", "decode_seconds", "bugs", "trouble"])
        for cell in self.cells:
            row = cell.as_dict()
            writer.writerow(
                [
                    harmless(cell.codec),
                    f"{cell.quality:g}",
                    harmless(cell.image),
                    cell.width,
                    cell.height,
                    cell.n_bytes,
                    row["bpp"],
                    row["ratio"],
                    *(cell.metrics.get(name) for name in names),
                    cell.encode_seconds,
                    cell.decode_seconds,
                    harmless(" ".join(cell.bugs)),
                    harmless(cell.trouble),
                ]
            )
        return out.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Write detailed.json, results.json and results.csv; the paths of the last two."""
        texts = {
            "detailed.json": json.dumps(self.detailed(), indent=2) + "\n",
            "results.json": json.dumps(self.results(), indent=2) + "\n",
            "results.csv": self.csv(),
        }
        for name, text in texts.items():
            write_whole(folder / name, text.encode(), force=True)
        return [folder / "results.json", folder / "results.csv"]


def harmless(text: str) -> str:
    """Text for a cell of a table: a spreadsheet takes it for no formula, a terminal for no command.

    What begins like a formula gets an apostrophe, unless it is a number.
    """
    text = printable(text)
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
