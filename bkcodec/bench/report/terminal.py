"""The results on a terminal. No digit is cut off: a table that is too wide becomes several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from bkcodec.bench.report.results import Outcome
from bkcodec.files import printable

WIDTH = 160  # columns, where the output is no terminal and nobody says how many it has
NAME_WIDTH = 24  # columns that a name gets; a longer one takes more lines


@dataclass(frozen=True, slots=True)
class Column:
    """A column of figures: its heading, of one or two lines, and a cell for each row."""

    head: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """In columns of the terminal."""
        return max(cell_len(line) for cell in (self.head, *self.cells) for line in cell.split("\n"))


def show(outcome: Outcome) -> None:
    """Print the tables of means, of BD-rates, of memory, and of settings."""
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    for table in (
        *means(outcome, console.width),
        rates(outcome),
        *resources(outcome, console.width),
        settings(outcome),
    ):
        if table.row_count:
            console.print(table)
            console.print()


def means(outcome: Outcome, width: int) -> list[Table]:
    """One row per codec and quality."""
    points = outcome.points
    quality = Column("q", [f"{p.quality:g}" if p.bpp is not None else "" for p in points])
    columns = [
        Column("bpp", [number(p.bpp, 4) for p in points]),
        Column("ratio", [number(p.ratio, 1) for p in points]),
        *(
            Column(m.name, [number(p.metrics.get(m.name), m.digits) for p in points])
            for m in outcome.metrics
        ),
        Column("encode\ns", [number(p.encode_seconds, 3) for p in points]),
        Column("decode\ns", [number(p.decode_seconds, 3) for p in points]),
        Column("bugs", [_bugs(p.n_failed, p.bugs) for p in points]),
    ]
    n = len(outcome.dataset.photos)
    means = "one picture" if n == 1 else f"means over {n} pictures"
    title = f"{printable(outcome.dataset_name)}: {means}"
    return fitted(title, [p.codec for p in points], quality, columns, width)


def _bugs(n_failed: int, bugs: dict[str, int]) -> str:
    """What failed, one kind a line."""
    if not n_failed:
        return "0"
    return "\n".join([f"{n_failed} failed", *(f"{n} {kind}" for kind, n in bugs.items())])


def rates(outcome: Outcome) -> Table:
    """BD-rates, with the range over which each holds."""
    scales = {m.name: m.scale for m in outcome.metrics}
    said = "".join(f"; {m.name} as {m.scale}" for m in outcome.metrics if m.scale)
    table = _table(f"BD-rate (negative: the codec is smaller than the anchor{said})")
    for name in ("codec", "anchor", "metric"):
        table.add_column(name, max_width=NAME_WIDTH, overflow="fold")
    table.add_column("BD-rate", justify="right", no_wrap=True)
    table.add_column("over", overflow="fold")
    for r in outcome.bd_rates:
        value = f"{r.percent:+.1f} %" if r.percent is not None else "-"
        unit = " dB" if scales[r.metric] else ""
        over = f"{r.low:.4g} to {r.high:.4g}{unit}" if r.percent is not None else r.reason
        table.add_row(printable(r.codec), printable(r.anchor), r.metric, value, over)
    return table


def resources(outcome: Outcome, width: int) -> list[Table]:
    """Load times and memory."""
    heads = {
        "encode_load_seconds": "load\nencoder",
        "decode_load_seconds": "load\ndecoder",
        "encode_peak_rss": "encoder\nMiB",
        "decode_peak_rss": "decoder\nMiB",
        "encode_peak_cuda": "encoder\nGPU, MiB",
        "decode_peak_cuda": "decoder\nGPU, MiB",
    }
    names = [codec.name for codec in outcome.candidates]
    every = [outcome.statistics.get(name, {}) for name in names]
    columns = []
    for key, head in heads.items():
        unit, digits = (1, 2) if "seconds" in key else (2**20, 0)
        if any(key in values for values in every):
            cells = [number(v[key] / unit, digits) if key in v else "" for v in every]
            columns.append(Column(head, cells))
    title = "Loading (s) and peak memory, encoder and decoder apart"
    return fitted(title, names, None, columns, width) if columns else []


def settings(outcome: Outcome) -> Table:
    """What each codec was, and how it was set."""
    table = _table("Settings")
    table.add_column("codec", max_width=NAME_WIDTH, overflow="fold")
    table.add_column("settings", overflow="fold")
    for codec in outcome.candidates:
        if codec.note:
            table.add_row(printable(codec.name), printable(codec.note))
    return table


def fitted(
    title: str, names: Sequence[str], key: Column | None, columns: Sequence[Column], width: int
) -> list[Table]:
    """As many tables as it takes for no line to be wider than the terminal.

    Args:
        title: of the first.
        names: of the rows, in the first column of each table.
        key: a second column that each table has.
        columns: the others, in order.
        width: of the terminal.
    """
    labels = [printable(name) for name in names]
    fixed = min(NAME_WIDTH, Column("codec", labels).width) + (key.width + 1 if key else 0)
    groups: list[list[Column]] = [[]]
    for column in columns:
        used = fixed + sum(c.width + 1 for c in groups[-1])
        if groups[-1] and used + column.width + 1 > width:
            groups.append([])
        groups[-1].append(column)
    tables: list[Table] = []
    for group in groups:
        table = _table(title if not tables else "")
        table.add_column("codec", max_width=NAME_WIDTH, overflow="fold")
        shown = [key, *group] if key else group
        for column in shown:
            table.add_column(column.head, justify="right", no_wrap=True, min_width=column.width)
        _fill(table, labels, shown)
        tables.append(table)
    return tables


def _fill(table: Table, labels: Sequence[str], columns: Iterable[Column]) -> None:
    for row in zip(labels, *(column.cells for column in columns), strict=True):
        table.add_row(*row)


def _table(title: str) -> Table:
    return Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
