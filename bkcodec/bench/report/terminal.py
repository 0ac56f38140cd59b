"""The results on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bkcodec.bench.report.results import Outcome

WIDTH = 160  # columns, where the output is no terminal


def show(outcome: Outcome) -> None:
    """Print the tables of means, of BD-rates, and of memory."""
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    for table in (means(outcome), rates(outcome), resources(outcome)):
        if table.row_count:
            console.print(table)


def means(outcome: Outcome) -> Table:
    """One row per codec and quality."""
    table = Table(
        title=f"{outcome.dataset_name}: means over {len(outcome.dataset.photos)} pictures"
    )
    table.add_column("codec")
    for name in (
        "quality",
        "bpp",
        "ratio",
        *(m.name for m in outcome.metrics),
        "encode s",
        "decode s",
        "Bugs",
    ):
        table.add_column(name, justify="right")
    for p in outcome.points:
        bugs = ", ".join([f"{p.n_failed} failed", *(f"{n} {bug}" for bug, n in p.bugs.items())])
        table.add_row(
            p.codec,
            f"{p.quality:g}" if p.bpp is not None else "",
            number(p.bpp, 4),
            number(p.ratio, 1),
            *(number(p.metrics.get(m.name), m.digits) for m in outcome.metrics),
            number(p.encode_seconds, 3),
            number(p.decode_seconds, 3),
            bugs if p.n_failed else "0",
        )
    return table


def rates(outcome: Outcome) -> Table:
    """BD-rates, with the range over which each holds."""
    table = Table(title="BD-rate (negative: the codec is smaller than the anchor)")
    for name in ("codec", "anchor", "metric"):
        table.add_column(name)
    table.add_column("BD-rate", justify="right")
    table.add_column("over")
    for r in outcome.bd_rates:
        value = f"{r.percent:+.1f} %" if r.percent is not None else "-"
        over = f"{r.low:.4g} to {r.high:.4g}" if r.percent is not None else r.reason
        table.add_row(r.codec, r.anchor, r.metric, value, over)
    return table


def resources(outcome: Outcome) -> Table:
    """Load times and memory."""
    table = Table(title="Loading (s) and peak memory (MiB), encoder and decoder apart")
    table.add_column("codec")
    columns = {
        "load e": "encode_load_seconds",
        "load d": "decode_load_seconds",
        "RSS e": "encode_peak_rss",
        "RSS d": "decode_peak_rss",
        "CUDA e": "encode_peak_cuda",
        "CUDA d": "decode_peak_cuda",
    }
    keys = {key for values in outcome.statistics.values() for key in values}
    columns = {name: key for name, key in columns.items() if key in keys}
    for name in columns:
        table.add_column(name, justify="right")
    for codec in outcome.candidates:
        values = outcome.statistics.get(codec.name, {})
        row = [
            number(values[key] / (1 if "seconds" in key else 2**20), 2 if "seconds" in key else 0)
            if key in values
            else ""
            for key in columns.values()
        ]
        if columns:
            table.add_row(codec.name, *row)
    return table


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
