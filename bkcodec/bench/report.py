"""The report: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bkcodec.bench.cells import Cell
from bkcodec.bench.outcome import Outcome, environment
from bkcodec.bench.pictures import BUDGET, NATIVE, PictureStore
from bkcodec.bench.plots import COLOURS
from bkcodec.files import write_whole

TEMPLATE = "report.html.j2"


def write_report(outcome: Outcome, pictures: PictureStore, path: Path) -> None:
    """Write the report of a benchmark, with the pictures that were kept."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("bkcodec.bench", "")
    template = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)  # fmt: skip
    data = page_data(outcome, pictures)
    text = template.render(
        outcome=outcome, environment=environment(), data=as_script(data), shown=data["images"],
        quality=pictures.quality, natives=", ".join(c.name for c in outcome.candidates
                                                    if c.name in NATIVE),
    )  # fmt: skip
    write_whole(path, text.encode(), force=True)


def page_data(outcome: Outcome, pictures: PictureStore) -> dict[str, Any]:
    """What the page's script reads."""
    images: list[dict[str, Any]] = []
    room = BUDGET
    for photo in pictures.photos:
        uris = {"": pictures.original_uri(photo)}
        uris |= {
            f"{c.codec} {c.quality:g}": uri for c in outcome.cells
            if c.image == photo.name and (uri := pictures.uri(c)) is not None
        }  # fmt: skip
        room -= sum(map(len, uris.values()))
        if room < 0 and images:
            break
        images.append({"name": photo.name, "width": photo.width, "height": photo.height,
                       "original": uris.pop(""), "pictures": uris})  # fmt: skip
    shown = {image["name"] for image in images}
    return {
        "metrics": [{"name": m.name, "label": m.label, "higher": m.higher_is_better,
                     "digits": m.digits} for m in outcome.metrics],
        "codecs": [{"name": c.name, "kind": c.kind, "note": c.note, "native": c.name in NATIVE,
                    "colour": COLOURS[i % len(COLOURS)]} for i, c in enumerate(outcome.candidates)],
        "points": [{"codec": p.codec, "quality": p.quality, "bpp": p.bpp, "metrics": p.metrics}
                   for p in outcome.points],
        "overlays": [{"name": c.name, "bpp": c.bpp, "metrics": c.metrics,
                      "colour": COLOURS[(len(outcome.candidates) + i) % len(COLOURS)]}
                     for i, c in enumerate(outcome.overlays)],
        "cells": [_cell(c) for c in outcome.cells if c.image in shown],
        "images": images,
    }  # fmt: skip


def as_script(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _cell(cell: Cell) -> dict[str, Any]:
    return {"codec": cell.codec, "quality": cell.quality, "image": cell.image, "bpp": cell.bpp,
            "bytes": cell.n_bytes, "metrics": cell.metrics,
            "failed": cell.error or " ".join(cell.bugs)}  # fmt: skip
