"""``bkcodec view``: a .bkc file as a page for the browser, beside its original."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bkcodec.commands import completion
from bkcodec.commands.batch import Report, exit_for, print_error, run_all
from bkcodec.commands.paths import EXTENSION, Job, Naming, plan
from bkcodec.container import Container, container_from_bytes, read_path
from bkcodec.errors import BkcError, InputError, UsageError
from bkcodec.files import (
    in_the_way,
    is_taken,
    printable,
    read_whole,
    write_stream,
    write_whole,
)
from bkcodec.options import Backbone, DecodeOptions, Limits, level_to_quality
from bkcodec.remote import Url, located

if TYPE_CHECKING:
    from bkcodec.pages.view import Shown


@click.command(
    short_help="Write a page that shows a .bkc file beside its original.",
    context_settings={"max_content_width": 100},
)
@click.argument("file", metavar="FILE", shell_complete=completion.files)
@click.argument("original", required=False, metavar="[ORIGINAL]")
@click.option(
    "-o",
    "--output",
    metavar="PAGE",
    help="The page to write; - for standard output.  [default: FILE with .html, beside it]",
)
@click.option(
    "--bk-sdm",
    metavar="DIR|NAME|OWNER/NAME@COMMIT",
    help="Pretrained networks, for bundles that need some.  [default: $BKCODEC_BK_SDM]",
)
@click.option(
    "-m",
    "--model",
    shell_complete=completion.bundles,
    help="The bundle's file, where the one needed is not installed.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite the page if it exists.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def view(
    file: str,
    original: str | None,
    output: str | None,
    bk_sdm: str | None,
    model: str | None,
    force: bool,
    verbose: bool,
) -> None:
    """Write one page that shows a .bkc file, with a slider between it and ORIGINAL.

    The page needs no network and no other file. FILE may be - for standard input. Without ORIGINAL,
    the page shows the decoded picture alone.
    """
    if os.path.isdir(file):
        raise UsageError(f"{printable(file)} is a directory; view takes one file")
    (job,) = plan((file,), Naming(output, ".html"), frozenset({EXTENSION}), False).jobs
    beside = None if original is None else located(original)
    _check(job.target, beside, force)
    options = DecodeOptions(backbone=Backbone(bk_sdm), model_path=model)

    def work(job: Job) -> Report:
        data = read_path(job.source, options.limits)
        page = _page(job.name, data, beside, options)
        if job.target is None:
            write_stream(page)
        else:
            write_whole(job.target, page, force)
        return Report(job)

    (report,) = run_all([job], work, 1)
    if report.error is not None:
        print_error(report, verbose)
    elif job.target is not None:
        click.echo(f"bkcodec: the page is {printable(job.target)}", err=True)
    exit_for([report])


def _check(target: Path | Url | None, original: Path | Url | None, force: bool) -> None:
    """Refuse an output that is in the way, before anything is decoded."""
    if target is None:
        if force:
            raise UsageError("--force does not apply to standard output")
        return
    if original is not None and os.path.realpath(str(target)) == os.path.realpath(str(original)):
        raise UsageError(f"{printable(target)} is an input; it would be overwritten")
    if is_taken(target) and not force:
        raise in_the_way(target)


def _page(name: str, data: bytes, original: Path | Url | None, options: DecodeOptions) -> bytes:
    from bkcodec.codec import codec_for
    from bkcodec.pages.view import Shown, view_page

    container = container_from_bytes(data, options.limits)
    beside = None if original is None else _original(original, container, options.limits)
    codec = codec_for(container, options)
    rows = codec.decode_rows(container, options, whole=True)
    decoded = Shown(printable(Path(name).name), len(data), rows)
    return view_page(decoded, level_to_quality(container.level), beside)


def _original(path: Path | Url, container: Container, limits: Limits) -> Shown:
    """The original, upright; what is no picture of the file's size is refused before decoding."""
    from bkcodec.image.opening import open_header
    from bkcodec.image.picture import rows_from_picture
    from bkcodec.image.reading import picture_from_image
    from bkcodec.pages.view import Shown

    size = (container.width, container.height)
    try:
        data = read_whole(path, limits.max_file_bytes)
        image = open_header(io.BytesIO(data), limits)
        if sorted(image.size) == sorted(size):  # a photo may lie on its side
            rows = rows_from_picture(picture_from_image(image))
            if (rows.width, rows.height) == size:
                return Shown(printable(path.name), len(data), rows)
        width, height = image.size
        raise InputError(
            f"has {width} x {height} pixels, the decoded picture {size[0]} x {size[1]}"
        )
    except BkcError as error:
        raise type(error)(f"{printable(path)}: {error}") from error
