"""What ``bkcodec train`` says: log lines, a progress bar on a terminal, and what comes next."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bkcodec.commands.train_request import Request
from bkcodec.files import printable
from bkcodec.train.clock import Clock, in_words
from bkcodec.train.phases import PHASES
from bkcodec.train.record import RECORD

if TYPE_CHECKING:
    from rich.console import Console

LINE = "%(asctime)s %(message)s"


@contextmanager
def talk() -> Iterator[Clock]:
    """A run's clock, which begins now; where standard error is a terminal it moves a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)
    if not console.is_terminal or not _is_first_process():
        logging.basicConfig(level=logging.INFO, format=LINE, stream=sys.stderr)
        yield Clock()
        return
    logging.basicConfig(level=logging.INFO, format=LINE, handlers=[_AboveTheBar(console)])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]} left"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("getting ready", total=1.0, left="?")

        def show(activity: str, share: float, left: float) -> None:
            bar.update(task, description=activity, completed=share, left=in_words(left))

        yield Clock(show)


class _AboveTheBar(logging.Handler):
    """Prints log lines so that the bar stays below them."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        self.console.print(self.format(record))


@contextmanager
def what_comes_next(request: Request) -> Iterator[None]:
    """Say the next command once a run or an export is done, and how to go on with one cut short."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if request.run is None and (request.output / RECORD).exists():
            _say("to go on", ["train", "-o", request.output, "--resume"])
        raise
    if request.run is not None:
        _say("next", ["encode", "photo.jpg", "-m", request.output])
        _say("or", ["models", "add", request.output])
    elif not request.dry_run:
        _say("next", _export_command(request))
        _say("or, for longer", ["train", "-o", request.output, "--resume", *_longer(request)])


def _export_command(request: Request) -> list[object]:
    words: list[object] = ["train", "--export", request.output]
    for folder, weight in request.data:
        words += ["--data", folder if weight == 1 else f"{folder}={weight:g}"]
    if PHASES[request.phase].name != "vae":
        words += ["--bk-sdm", request.bk_sdm] if request.bk_sdm is not None else []
        words += ["--vae", request.vae] if request.vae is not None else []
    run = request.output.absolute().name
    bundle = request.output.parent / f"{run}.safetensors"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run).strip("-._") or "mine"  # as models add has it
    return [*words, "-o", bundle, "--name", name]


def _longer(request: Request) -> list[object]:
    """The length of a run twice as long."""
    if request.max_minutes is not None:
        return ["--max-minutes", f"{2 * request.max_minutes:g}"]
    if request.max_steps is not None:
        return ["--max-steps", 2 * request.max_steps]
    return ["--epochs", 2 * (request.epochs or 100)]


def _say(what: str, words: list[object]) -> None:
    if _is_first_process():
        click.echo(f"{what}: bkcodec {printable(shlex.join(map(str, words)))}", err=True)


def _is_first_process() -> bool:
    """Whether a launcher of several processes, if any, means this one to speak."""
    return os.environ.get("RANK", "0") == "0"
