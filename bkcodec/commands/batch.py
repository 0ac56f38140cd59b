"""Many files: one report per file, the summary, exit codes."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bkcodec.coding.targets import Target
from bkcodec.commands.paths import Job, Plan, hints
from bkcodec.commands.shared import Shared
from bkcodec.errors import BkcError
from bkcodec.files import Content, in_the_way, is_taken, printable, write_stream, write_whole
from bkcodec.machine import n_cores, out_of_memory, share_heap, share_threads

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from bkcodec.coding.effort import Tell

PATIENCE = 1.0  # seconds until progress is shown
Work = Callable[[Job], "Report"]


@dataclass(slots=True)
class Report:
    """What became of one file.

    Attributes:
        job: what was to be done.
        values: what there is to report.
        error: why it failed.
        skipped: whether its output was there already.
        problems: what failed inside of a file that is done otherwise, a line each.
    """

    job: Job
    values: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    skipped: bool = False
    problems: list[str] = field(default_factory=list)

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
        if "members" in v:
            return "   ".join([head, *_member_parts(v), f"{v['seconds']:.1f} s"])
        parts = [head, f"{v['width']}x{v['height']}"]
        if "bytes" in v:
            parts += [f"{spaced(v['bytes'])} B", f"{v['bpp']:.4f} bpp"]
        if "quality" in v:
            parts += [f"q {v['quality']:g}"]
        if "reached" in v:
            parts += [Target.parse(v["target"]).metric.shown(v["reached"])]
        if "psnr" in v:
            ms_ssim = v.get("ms_ssim")
            parts += [f"PSNR {v['psnr']:.2f} dB"]
            parts += [f"MS-SSIM {ms_ssim:.4f}"] if ms_ssim is not None else []
        if "seconds" in v:
            parts += [f"{v['seconds']:.2f} s", f"{v['device']}"]
        return "   ".join(parts + [f"({printable(note)})" for note in v.get("notes", ())])


def _member_parts(v: dict[str, Any]) -> list[str]:
    """What a shard's line says of its members and bytes."""
    parts = [f"{spaced(v['members'])} members", f"{spaced(v['converted'])} converted"]
    parts += [f"{spaced(v['failed'])} failed"] if v["failed"] else []
    return [*parts, f"{spaced(v['bytes_before'])} B -> {spaced(v['bytes_after'])} B"]


def silent(share: float, saved: float | None) -> None:
    """For nobody who looks."""


def spaced(number: int) -> str:
    """A number with spaces between thousands."""
    return f"{number:,}".replace(",", " ")


def exit_code(error: BaseException) -> int:
    """The exit code that an error stands for."""
    return error.exit_code if isinstance(error, BkcError) else 1


def run_all(jobs: list[Job], work: Work, n_jobs: int) -> Iterator[Report]:
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
    plan: Plan, load: Callable[[Tell], Work], shared: Shared, activity: str, writes: bool = True
) -> None:
    """Run all jobs, print a line or an error for each and a summary, exit where one failed.

    Args:
        plan: what to do.
        load: makes what does it, which may say how far it is with the only job; takes time, and is
            not called where nothing is left to do.
        shared: options.
        activity: a word for what is done.
        writes: whether outputs that exist are in the way.

    Raises:
        SystemExit: with the error's exit code, or 1 for a batch.
        BkcError: what does the work cannot be loaded.
    """
    from rich.console import Console

    if shared.verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)
    began = time.monotonic()
    reports = [Report(job, error=error) for job, error in plan.failures]
    reports += [r for job in plan.jobs if (r := _before(job, shared, writes)) is not None]
    for report in reports:
        _show(report, shared, console)
    done = {id(report.job) for report in reports}
    jobs = [job for job in plan.jobs if id(job) not in done]
    if jobs:
        share_heap()
        n_jobs = share_threads(min(shared.jobs or n_cores(), len(jobs)))
        with _progress(console, activity, len(jobs), shared) as (advance, tell):
            work = load(tell)
            for report in run_all(jobs, work, n_jobs):
                reports.append(report)
                advance()
                _show(report, shared, console)
    if plan.is_batch:
        _summarise(reports, plan.left_out, time.monotonic() - began, shared, console)
    exit_for(reports)


def _before(job: Job, shared: Shared, writes: bool) -> Report | None:
    """What becomes of a job whose output is in the way; None where nothing is."""
    try:
        if (writes or shared.skip_existing) and is_in_the_way(job, shared):
            return Report(job, skipped=True)
    except BkcError as error:
        return Report(job, error=error)
    return None


@contextmanager
def _progress(
    console: Console, activity: str, n_jobs: int, shared: Shared
) -> Iterator[tuple[Callable[[], None], Tell]]:
    """A bar on work over a second, where somebody looks at it.

    It is given as what counts a job as done, and what says how far the only job is.
    """
    if shared.quiet or not console.is_terminal:
        yield (lambda: None), silent
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    count = [TextColumn("{task.completed}/{task.total}")] if n_jobs > 1 else []
    first = SpinnerColumn(), TextColumn("{task.description}"), BarColumn()
    progress: Progress = Progress(
        *first, *count, TimeElapsedColumn(), console=console, transient=True
    )
    task = progress.add_task(activity, total=n_jobs if n_jobs > 1 else None)

    def tell(share: float, saved: float | None) -> None:
        gain = "" if saved is None else f", {100 * max(0.0, saved):.1f} % smaller so far"
        progress.update(task, total=1, completed=share, description=activity + gain)

    timer = threading.Timer(PATIENCE, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield (lambda: progress.advance(task)), (tell if n_jobs == 1 else silent)
    finally:
        timer.cancel()
        timer.join()
        progress.stop()


def _show(report: Report, shared: Shared, console: Console) -> None:
    if shared.as_json:
        click.echo(json.dumps(report.as_dict()))
    if report.error is not None:
        print_error(report, shared.verbose)
    elif not shared.as_json and not shared.quiet:
        console.print(report.line())
    for problem in report.problems:
        click.echo(f"bkcodec: error: {printable(problem)}", err=True)


def _summarise(
    reports: list[Report],
    left_out: Counter[str],
    seconds: float,
    shared: Shared,
    console: Console,
) -> None:
    """Files, failures, bytes before and after, ratio and time, as a line or a JSON object."""
    done = [r for r in reports if r.error is None and not r.skipped]
    before = sum(r.values.get("bytes_before", 0) for r in done)
    after = sum(r.values.get("bytes_after", 0) for r in done)
    failed = sum(r.error is not None for r in reports)
    shards = [r.values for r in done if "members" in r.values]
    members = {k: sum(v[k] for v in shards) for k in ("members", "converted", "failed") if shards}
    skipped = sum(r.skipped for r in reports)
    if shared.as_json:
        row: dict[str, Any] = {
            "files": len(reports),
            "done": len(done),
            "failed": failed,
            "skipped": skipped,
        }
        row |= {"left_out": dict(left_out), "bytes_before": before, "bytes_after": after}
        row |= {"of_members": members} if members else {}
        click.echo(json.dumps({"summary": row | {"seconds": round(seconds, 3)}}))
    if shared.quiet or shared.as_json:
        return
    if left_out:
        kinds = ", ".join(f"{n} {printable(kind)}" for kind, n in sorted(left_out.items()))
        text = "; ".join([kinds, *hints(left_out)])
        console.print(f"left out, of a kind that cannot be read here: {text}")
    parts = [f"{len(done)} of {len(reports)} files"]
    if before and after:
        low, high = sorted((before, after))
        parts += [f"{spaced(before)} B -> {spaced(after)} B ({high / low:.1f}:1)"]
    if members:
        parts += [
            "{converted:,} of {members:,} members converted ({failed:,} failed)".format(**members)
        ]
    parts += [f"{skipped} skipped"] if skipped else []
    parts += [f"{failed} failed"] if failed else []
    console.print("   ".join([*parts, f"{seconds:.1f} s"]))


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
    """Raise SystemExit where a report has an error or problems."""
    errors = [report.error for report in reports if report.error is not None]
    if errors:
        raise SystemExit(exit_code(errors[0]) if len(reports) == 1 else 1)
    if any(report.problems for report in reports):
        raise SystemExit(1)


def is_in_the_way(job: Job, shared: Shared) -> bool:
    """Whether the output exists and is to be left.

    Raises:
        InputError: it exists, and nobody said what to do.
    """
    if job.target is None or not is_taken(job.target):
        return False
    if shared.skip_existing:
        return True
    if not shared.force:
        raise in_the_way(job.target)
    return False


def write_output(job: Job, content: Content, shared: Shared) -> None:
    """Write a job's output, whole or not at all."""
    if job.target is None:
        write_stream(content)
        return
    write_whole(job.target, content, shared.force)
    if shared.keep_mtime and isinstance(job.source, Path) and isinstance(job.target, Path):
        status = job.source.stat()
        os.utime(job.target, ns=(status.st_atime_ns, status.st_mtime_ns))
