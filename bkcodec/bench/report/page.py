"""The report: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bkcodec.bench.environment import environment
from bkcodec.bench.report.curves import COLOURS, ON_DARK
from bkcodec.bench.report.pictures import BUDGET, LARGE, PictureStore, mime_of, shown_size
from bkcodec.bench.report.results import Outcome
from bkcodec.files import write_whole

TEMPLATE = "page.html.j2"


def write_report(outcome: Outcome, pictures: PictureStore, path: Path) -> None:
    """Write the report of a benchmark, with the pictures that were kept."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("bkcodec.bench.report", "")
    template = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)
    data = page_data(outcome, pictures)
    text = template.render(
        outcome=outcome,
        environment=environment(),
        data=as_script(data),
        shown=data["images"],
        natives=", ".join(c.name for c in outcome.candidates if mime_of(c)),
        cropped=any(p.width * p.height > LARGE for p in pictures.photos),
    )
    write_whole(path, text.encode(), force=True)


def page_data(outcome: Outcome, pictures: PictureStore) -> dict[str, Any]:
    """What the page's script reads; qualities are text there, so that they compare as written."""
    images: list[dict[str, Any]] = []
    room = BUDGET
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
            {"name": m.name, "label": m.label, "digits": m.digits} for m in outcome.metrics
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


def as_script(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
