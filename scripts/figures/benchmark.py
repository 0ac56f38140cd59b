"""Puts a benchmark's results into docs/benchmark.md: python scripts/figures/benchmark.py FOLDER.

FOLDER is what ``bkcodec bench -o FOLDER`` wrote. The tables go between the page's two marks, the
plots beside it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmark.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
PLOTS = ("psnr", "ms-ssim")


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def means(results: dict[str, Any]) -> list[str]:
    metrics = results["metrics"]
    rows = []
    for p in results["points"]:
        quality = f"{p['quality']:g}" if p["bpp"] is not None else ""
        values = [
            number(p["metrics"][m["name"]], 2 if "PSNR" in m["label"] else 4) for m in metrics
        ]
        times = [number(p[f"{side}_seconds"], 3) for side in ("encode", "decode")]
        rows.append([p["codec"], quality, number(p["bpp"], 4), *values, *times])
    labels = [m["label"] for m in metrics]
    return table(["codec", "quality", "bpp", *labels, "encode, s", "decode, s"], rows)


def bd_rates(results: dict[str, Any]) -> list[str]:
    rates = {(r["anchor"], r["metric"]): r for r in results["bd_rates"]}
    rows = []
    for anchor in dict.fromkeys(r["anchor"] for r in results["bd_rates"]):
        row = [anchor]
        for metric in results["metrics"]:
            r = rates[anchor, metric["name"]]
            unit = " dB" if metric["scale"] else ""
            over = f"{r['low']:.4g} to {r['high']:.4g}{unit}" if r["low"] else ""
            span = f"{r['percent']:+.1f} % ({over})" if over else ""
            row.append(span or r["reason"])
        rows.append(row)
    title = (
        "BD-rate of lite (negative: lite is smaller), and the range of the metric it holds over:"
    )
    heads = [m["label"] + (f" as {m['scale']}" if m["scale"] else "") for m in results["metrics"]]
    return [title, "", *table(["against", *heads], rows)]


def resources(results: dict[str, Any]) -> list[str]:
    rows = []
    for codec in results["codecs"]:
        s = codec["statistics"]
        sizes = [s[k] / 2**20 if k in s else None for k in ("encode_peak_rss", "decode_peak_rss")]
        loads = [s.get(f"{side}_load_seconds") for side in ("encode", "decode")]
        values = [*(number(v, 2) for v in loads), *(number(v, 0) for v in sizes)]
        rows.append([codec["name"], *values])
    head = [
        "codec",
        "load encoder, s",
        "load decoder, s",
        "encoder's peak, MiB",
        "decoder's peak, MiB",
    ]
    machine = results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    where = f"{machine['cores']} cores, Python {machine['python']}, {packages}."
    notes = [f"{codec['name']}: {codec['note']}" for codec in results["codecs"] if codec["note"]]
    return [*table(head, rows), f"{'; '.join(notes)}.", "", where, ""]


def main() -> None:
    folder = Path(sys.argv[1])
    results = json.loads((folder / "detailed.json").read_text("utf-8"))
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    lines = [*means(results), *bd_rates(results), *resources(results)]
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after, "utf-8")
    for name in PLOTS:
        shutil.copy(folder / f"rd-{name}.png", PAGE.with_name(f"benchmark-{name}.png"))


if __name__ == "__main__":
    main()
