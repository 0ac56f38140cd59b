"""Many files: the options that encode and decode share, one report per file, the summary."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from bkcodec.commands.paths import Job
from bkcodec.commands.values import tile
from bkcodec.errors import BkcError, InputError, UsageError
from bkcodec.files import Content, is_stream, printable, refuse_folder, write_stream, write_whole
from bkcodec.machine import out_of_memory, share_heap, share_threads
from bkcodec.options import DEVICES, UNETS, Backbone, Limits, at_most_one


@dataclass(frozen=True, slots=True)
class Shared:
    """The options that encode and decode have in common; see ``shared_options``."""

    output: str | None
    bk_sdm: str | None
    vae: str | None
    unet: str
    device: str
    jobs: int
    tile: int | None
    max_pixels: int
    recursive: bool
    skip_existing: bool
    force: bool
    keep_mtime: bool
    as_json: bool
    verbose: bool

    @property
    def backbone(self) -> Backbone:
        """Where pretrained parts come from."""
        return Backbone(self.bk_sdm, self.vae, self.unet)

    @property
    def limits(self) -> Limits:
        """What is accepted."""
        return Limits(max_pixels=self.max_pixels)

    def check(self, inputs: Iterable[str], jobs: list[Job]) -> None:
        """Refuse options that do not go together, or do not apply (UsageError)."""
        at_most_one(**{"--force": self.force, "--skip-existing": self.skip_existing})
        to_stdout = any(job.target is None for job in jobs)
        flags = {"json": self.as_json, "force": self.force, "skip-existing": self.skip_existing}
        for flag, is_set in flags.items():
            if is_set and to_stdout:
                raise UsageError(f"--{flag} does not apply to standard output")
        if self.recursive and not any(Path(name).is_dir() for name in inputs):
            raise UsageError("--recursive needs a directory as input")
        if self.keep_mtime and (to_stdout or any(job.source is None for job in jobs)):
            raise UsageError("--keep-mtime needs files, not standard input or output")


_OPTIONS = (
    click.option(
        "-v", "--verbose", is_flag=True, help="Show the log, and the traceback of each error."
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object per file to standard output."
    ),
    click.option(
        "--keep-mtime", is_flag=True, help="Give each output the modification time of its input."
    ),
    click.option("-f", "--force", is_flag=True, help="Overwrite outputs that exist."),
    click.option("--skip-existing", is_flag=True, help="Skip inputs whose output exists."),
    click.option("-r", "--recursive", is_flag=True, help="Look for files in subdirectories too."),
    click.option(
        "--max-pixels",
        type=click.IntRange(0),
        default=Limits().max_pixels,
        show_default=True,
        help="Refuse images with more pixels; 0 means no limit.",
    ),
    click.option(
        "--tile",
        type=tile,
        metavar="auto|off|PX",
        default="auto",
        show_default=True,
        help="Side in pixels of the tiles that the networks see of a large image.",
    ),
    click.option(
        "-j",
        "--jobs",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Files to work on at the same time; at most one per core.",
    ),
    click.option(
        "--device",
        type=click.Choice(DEVICES),
        default="auto",
        show_default=True,
        help="Device that runs the networks.",
    ),
    click.option(
        "--unet",
        type=click.Choice(UNETS),
        default="auto",
        show_default=True,
        help="The denoising U-Net to use: the backbone's or the bundle's own.",
    ),
    click.option("--vae", metavar="DIR|NAME", help="A VAE to use instead of the backbone's."),
    click.option(
        "--bk-sdm",
        metavar="DIR|NAME|OWNER/NAME@COMMIT",
        help="Pretrained networks, for bundles that need some.  [default: $BKCODEC_BK_SDM]",
    ),
    click.option(
        "-o",
        "--output",
        metavar="PATH",
        help="File or directory to write (a directory exists or ends in /); - for standard output.",
    ),
)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command; it gets them as one ``Shared``, named ``shared``."""

    @functools.wraps(command)
    def with_shared(**given: Any) -> Any:
        shared = Shared(**{f.name: given.pop(f.name) for f in fields(Shared)})
        return command(shared=shared, **given)

    wrapped: Callable[..., Any] = with_shared
    for option in _OPTIONS:
        wrapped = option(wrapped)
    return wrapped


@dataclass(slots=True)
class Report:
    """What became of one file."""

    job: Job
    values: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    skipped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        target = str(self.job.target) if self.job.target is not None else "-"
        row: dict[str, Any] = {"input": self.job.name, "output": target}
        if self.error is not None:
            return row | {"error": str(self.error), "exit_code": exit_code(self.error)}
        return row | ({"skipped": True} if self.skipped else {}) | self.values

    def line(self) -> str:
        """For people."""
        target = printable(self.job.target) if self.job.target is not None else "standard output"
        head = f"{printable(self.job.name)} -> {target}"
        if self.skipped:
            return f"{head}   exists, skipped"
        v = self.values
        parts = [head, f"{v['width']}x{v['height']}"]
        if "bytes" in v:
            parts += [f"{v['bytes']:,} B".replace(",", " "), f"{v['bpp']:.4f} bpp"]
        if "quality" in v:
            parts += [f"q {v['quality']:g}"]
        if "frames_left_out" in v:
            parts += [f"first of {v['frames_left_out'] + 1} frames"]
        if "seconds" in v:
            parts += [f"{v['seconds']:.2f} s", f"{v['device']}"]
        return "   ".join(parts)


def exit_code(error: BaseException) -> int:
    """The exit code that an error stands for."""
    return error.exit_code if isinstance(error, BkcError) else 1


def run_all(jobs: list[Job], work: Callable[[Job], Report], n_jobs: int) -> Iterator[Report]:
    """Work through all jobs, ``n_jobs`` at a time; a failure is a report, not an exception."""

    def attempt(job: Job) -> Report:
        try:
            with out_of_memory("Fewer --jobs or a smaller --tile need less."):
                return work(job)
        except BrokenPipeError:
            raise
        except Exception as error:  # a batch goes on; the caller names what failed
            return Report(job, error=error)

    if n_jobs <= 1 or len(jobs) <= 1:
        yield from map(attempt, jobs)
        return
    pool = ThreadPoolExecutor(n_jobs)
    try:
        for future in as_completed([pool.submit(attempt, job) for job in jobs]):
            yield future.result()
    finally:  # who stops does not wait for the files that are at work
        pool.shutdown(wait=False, cancel_futures=True)


def run_batch(
    jobs: list[Job], work: Callable[[Job], Report], shared: Shared, activity: str
) -> None:
    """Run all jobs with a progress bar, print a line or an error for each, exit where one failed.

    Raises:
        SystemExit: with the error's exit code, or 1 for a batch.
    """
    from rich.console import Console
    from rich.progress import Progress

    if shared.verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    share_heap()
    n_jobs = share_threads(min(shared.jobs, len(jobs)))
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)
    reports = []
    show = console.is_terminal and len(jobs) > 1
    with Progress(console=console, transient=True, disable=not show) as progress:
        task = progress.add_task(activity, total=len(jobs))
        for report in run_all(jobs, work, n_jobs):
            reports.append(report)
            progress.advance(task)
            if shared.as_json:
                click.echo(json.dumps(report.as_dict()))
            if report.error is not None:
                print_error(report, shared.verbose)
            elif not shared.as_json:
                console.print(report.line())
    failed = sum(report.error is not None for report in reports)
    if failed and len(jobs) > 1:
        console.print(f"{failed} of {len(jobs)} files failed")
    exit_for(reports)


def print_error(report: Report, verbose: bool) -> None:
    """One line on stderr, with ``verbose`` the traceback before it."""
    error = report.error
    assert error is not None
    if verbose:
        click.echo("".join(traceback.format_exception(error)), err=True)
    expected = isinstance(error, BkcError)
    text = str(error) if expected else f"unexpected {type(error).__name__}: {error}"
    name = printable(report.job.name)
    subject = "" if text.startswith(name) else f"{name}: "
    click.echo(f"bkcodec: error: {subject}{printable(text)}", err=True)


def exit_for(reports: list[Report]) -> None:
    """Raise SystemExit where a report has an error."""
    errors = [report.error for report in reports if report.error is not None]
    if errors:
        raise SystemExit(exit_code(errors[0]) if len(reports) == 1 else 1)


def is_in_the_way(job: Job, shared: Shared) -> bool:
    """Whether the output exists and is to be left.

    Raises:
        InputError: it exists, and nobody said what to do.
    """
    if job.target is None or not (job.target.exists() or job.target.is_symlink()):
        return False
    refuse_folder(job.target)
    if is_stream(job.target):
        return False
    if shared.skip_existing:
        return True
    if not shared.force:
        raise InputError(f"{printable(job.target)}: exists already; --force overwrites it")
    return False


def write_output(job: Job, content: Content, shared: Shared) -> None:
    """Write a job's output, whole or not at all."""
    if job.target is None:
        write_stream(content)
        return
    write_whole(job.target, content, shared.force)
    if shared.keep_mtime and job.source is not None:
        status = job.source.stat()
        os.utime(job.target, ns=(status.st_atime_ns, status.st_mtime_ns))
