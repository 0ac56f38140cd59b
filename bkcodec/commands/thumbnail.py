"""``bkcodec thumbnail``: a small PNG of a .bkc file, which file managers ask for."""

from __future__ import annotations

from pathlib import Path

import click

from bkcodec.commands.batch import Report, exit_for, print_error, run_all
from bkcodec.commands.paths import Job
from bkcodec.container import read_path
from bkcodec.files import write_whole
from bkcodec.options import DecodeOptions


@click.command(hidden=True)
@click.argument("file", metavar="FILE")
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--size",
    type=click.IntRange(1, 1024),
    default=128,
    show_default=True,
    help="Width and height in pixels that the thumbnail may have at most.",
)
def thumbnail(file: str, output: str, size: int) -> None:
    """Write a small PNG of a .bkc file, over what is there: formats/bkc.thumbnailer calls this."""
    from bkcodec.codec import decode

    options = DecodeOptions(device="cpu")  # one small picture is not worth waking a GPU

    def reduce(job: Job) -> Report:
        image = decode(read_path(job.source, options.limits), options)
        image.thumbnail((size, size))
        write_whole(Path(output), lambda png: image.save(png, "PNG"), force=True)
        return Report(job)

    reports = list(run_all([Job(Path(file), Path(output))], reduce, 1))
    for report in reports:
        if report.error is not None:
            print_error(report, verbose=False)
    exit_for(reports)
