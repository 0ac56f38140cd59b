"""The report: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bkcodec.bench.environment import environment
from bkcodec.bench.report.curves import COLOURS, ON_DARK
from bkcodec.bench.report.pictures import BUDGET, LARGE, PictureStore, mime_of, shown_size
from bkcodec.bench.report.results import Outcome
from bkcodec.bench.report.verdict import verdict
from bkcodec.files import write_whole
from bkcodec.pages.template import as_script, data_uri, rendered

TYPES = {".json": "application/json", ".csv": "text/csv", ".svg": "image/svg+xml"}


def write_report(
    outcome: Outcome, pictures: PictureStore, downloads: Sequence[Path], path: Path
) -> None:
    """Write the report of a benchmark, with the pictures that were kept and files to download."""
    files = [(f.name, data_uri(f.read_bytes(), TYPES[f.suffix])) for f in downloads]
    data = page_data(outcome, pictures, BUDGET - sum(len(uri) for _, uri in files))
    text = rendered(
        "bkcodec.bench.report",
        "page.html.j2",
        outcome=outcome,
        verdict=verdict(outcome.candidates[0].name, outcome.metrics, outcome.matrix),
        downloads=files,
        matrices=matrices(outcome),
        environment=environment(),
        data=as_script(data),
        shown=data["images"],
        natives=", ".join(c.name for c in outcome.candidates if mime_of(c)),
        cropped=any(p.width * p.height > LARGE for p in pictures.photos),
    )
    write_whole(path, text.encode(), force=True)


def matrices(outcome: Outcome) -> list[dict[str, Any]]:
    """For each metric, the BD-rates of all codecs (rows) against all (columns)."""
    names = [c.name for c in outcome.candidates if c.kind != "ceiling"]
    rates = {(r.metric, r.codec, r.anchor): r for r in outcome.matrix}
    return [
        {
            "label": f"{metric.label} as {metric.scale}" if metric.scale else metric.label,
            "names": names,
            "rows": [(row, [rates.get((metric.name, row, n)) for n in names]) for row in names],
        }
        for metric in outcome.metrics
    ]


def page_data(outcome: Outcome, pictures: PictureStore, room: int) -> dict[str, Any]:
    """What the page's script reads; qualities are text there, so that they compare as written.

    Args:
        outcome: of the benchmark.
        pictures: that were kept.
        room: characters that the pictures may have; those beyond are left out.
    """
    images: list[dict[str, Any]] = []
    for photo in pictures.photos:
        cells = [
            {
                "codec": c.codec,
                "quality": f"{c.quality:g}",
                "bpp": c.bpp,
                "bytes": c.n_bytes,
                "metrics": c.metrics,
                "trouble": c.trouble,
                "picture": uri,
            }
            for c in outcome.cells
            if c.image == photo.name and (uri := pictures.uri(c)) is not None
        ]
        original = pictures.original_uri(photo)
        room -= len(original) + sum(len(str(cell["picture"])) for cell in cells)
        if room < 0:
            break
        width, height = shown_size(photo.width, photo.height)
        images.append(
            {
                "name": photo.name,
                "width": width,
                "height": height,
                "original": original,
                "cells": cells,
            }
        )
    return {
        "colours": {"light": COLOURS, "dark": ON_DARK},
        "metrics": [
            {"name": m.name, "label": m.label, "digits": m.digits, "scale": m.scale}
            for m in outcome.metrics
        ],
        "codecs": [{"name": c.name, "kind": c.kind} for c in outcome.candidates],
        "points": [
            {"codec": p.codec, "quality": f"{p.quality:g}", "rates": p.rates, "metrics": p.metrics}
            for p in outcome.points
        ],
        "overlays": [
            {"name": c.name, "bpp": c.bpp, "metrics": c.metrics} for c in outcome.overlays
        ],
        "images": images,
    }
