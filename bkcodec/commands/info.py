"""``bkcodec info``: what a .bkc file says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bkcodec.commands import completion
from bkcodec.commands.batch import Report, exit_code, exit_for, print_error, run_all
from bkcodec.commands.paths import Job
from bkcodec.container import read_path
from bkcodec.errors import UsageError
from bkcodec.files import STREAM, printable
from bkcodec.options import METADATA
from bkcodec.remote import located


@click.command(short_help="Show what .bkc files say about themselves.")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=completion.files
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per file.")
@click.option("--verify", is_flag=True, help="Decode the symbols too, and print their SHA-256.")
@click.option(
    "--extract",
    type=click.Choice(METADATA),
    help="Write one block of metadata to the file named by -o.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=completion.files,
    help="File that --extract writes; - for standard output.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite the output if it exists.")
@click.option(
    "-m",
    "--model",
    shell_complete=completion.bundles,
    help="The bundle's file for --verify, where it is not installed.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of each error.")
def info(
    files: tuple[str, ...],
    as_json: bool,
    verify: bool,
    extract: str | None,
    output: str | None,
    force: bool,
    model: str | None,
    verbose: bool,
) -> None:
    """Show what .bkc files say about themselves, without decoding them."""
    from bkcodec import inspection

    if bool(extract) != bool(output):
        raise UsageError("--extract and -o go together")
    if extract and len(files) > 1:
        raise UsageError("--extract takes one file")
    if extract and (as_json or verify):
        raise UsageError(f"--extract and --{'json' if as_json else 'verify'} exclude each other")
    if files.count(STREAM) > 1:
        raise UsageError("standard input was named twice")
    if force and not extract:
        raise UsageError("--force only matters with --extract")
    if output not in (None, STREAM) and _is_same_file(files[0], str(output)):
        raise UsageError(f"{printable(output)} is the input; it would be overwritten")
    if model and not verify:
        raise UsageError("--model only matters with --verify")

    def describe(job: Job) -> Report:
        data = read_path(job.source, inspection.NO_PIXEL_LIMIT)
        if extract and output:
            inspection.extract(data, extract, output, force)
        return Report(job, inspection.info(data, verify, model))

    reports = []
    jobs = [Job(None if name == STREAM else located(name), None) for name in files]
    for report in run_all(jobs, describe, 1):
        reports.append(report)
        row: dict[str, Any] = {"file": report.job.name}
        if report.error is not None:
            print_error(report, verbose)
            row |= {"error": str(report.error), "exit_code": exit_code(report.error)}
        if as_json:
            click.echo(json.dumps(row | report.values))
        elif report.error is None and not extract:
            click.echo(inspection.text(report.job.name, report.values))
    exit_for(reports)


def _is_same_file(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()
