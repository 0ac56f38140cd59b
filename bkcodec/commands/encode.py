"""``bkcodec encode``: photos to .bkc files."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bkcodec.commands.batch import (
    Report,
    Shared,
    is_in_the_way,
    run_batch,
    shared_options,
    write_output,
)
from bkcodec.commands.paths import EXTENSION, Job, plan
from bkcodec.commands.values import byte_size, strip
from bkcodec.errors import BkcError, UsageError
from bkcodec.files import IMAGE_SUFFIXES, printable, read_whole
from bkcodec.options import MAX_EFFORT, EncodeOptions, Limits, level_to_quality

if TYPE_CHECKING:
    from bkcodec.codec import Codec, Encoded
    from bkcodec.image.picture import Picture


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-q",
    "--quality",
    type=click.FloatRange(0, 100),
    help="0 to 100 in half steps; higher is better.  [default: 50]",
)
@click.option(
    "--target-bpp",
    type=click.FloatRange(0, min_open=True),
    help="Largest number of bits per pixel.",
)
@click.option(
    "--target-size",
    type=byte_size,
    metavar="N[k|M]",
    help="Largest file size in bytes; 12k is 12,000.",
)
@click.option(
    "-m",
    "--model",
    default="lite",
    show_default=True,
    help="The bundle to encode with, by name or file.",
)
@click.option(
    "--strip",
    type=strip,
    metavar="exif,xmp,icc,all",
    default="",
    help="Metadata that is not to be stored.",
)
@click.option(
    "--alpha",
    default="keep",
    show_default=True,
    metavar="keep|drop|COLOR",
    help="Store the alpha plane (lossless), leave it out, or blend the picture onto a colour.",
)
@click.option(
    "--effort",
    type=click.IntRange(0, MAX_EFFORT),
    default=0,
    show_default=True,
    help="Search for what the decoder's U-Net should start from: 1 for the timestep, 2 for the "
    "seed of several steps too.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="After this time, searches (--target-bpp, --target-size, --effort) take the best so far.",
)
@click.option("--dry-run", is_flag=True, help="Encode and report, but write nothing.")
@click.option(
    "--verify", is_flag=True, help="Read back each file that was written and compare its symbols."
)
@shared_options
def encode(
    inputs: tuple[str, ...],
    quality: float | None,
    target_bpp: float | None,
    target_size: int | None,
    model: str,
    strip: frozenset[str],
    alpha: str,
    effort: int,
    timeout: float | None,
    dry_run: bool,
    verify: bool,
    shared: Shared,
) -> None:
    """Encode photos into .bkc files.

    INPUT is a file, a directory, or - for standard input; several may be given.
    """
    options = EncodeOptions(
        quality=quality,
        target_bpp=target_bpp,
        target_size=target_size,
        model=model,
        device=shared.device,
        tile=shared.tile,
        strip=strip,
        alpha=alpha,
        effort=effort,
        timeout=timeout,
        backbone=shared.backbone,
    )
    if timeout is not None and not (effort or options.has_target):
        raise UsageError("--timeout needs a search: --target-bpp, --target-size or --effort")
    if shared.unet != "auto" and not effort:
        raise UsageError("--unet matters to encoding with --effort only")
    jobs = plan(inputs, shared.output, EXTENSION, IMAGE_SUFFIXES, shared.recursive)
    shared.check(inputs, jobs)
    checks = {"--verify": verify, "--keep-mtime": shared.keep_mtime}
    if dry_run and any(checks.values()):
        flag = next(flag for flag, is_set in checks.items() if is_set)
        raise UsageError(f"{flag} has no file to work on with --dry-run")
    if verify and any(job.target is None for job in jobs):
        raise UsageError("--verify cannot read back standard output")
    run_batch(jobs, _Work(options, shared, dry_run, verify), shared, "Encoding")


class _Work:
    """Encodes one file after the other."""

    def __init__(self, options: EncodeOptions, shared: Shared, dry_run: bool, verify: bool) -> None:
        from bkcodec.codec import Codec

        self.options, self.shared, self.dry_run, self.verify = options, shared, dry_run, verify
        self.codec = Codec(options.model, options.device, options.needed_backbone)

    def __call__(self, job: Job) -> Report:
        if is_in_the_way(job, self.shared):
            return Report(job, skipped=True)
        codec, started = self.codec, time.perf_counter()
        picture, n_frames = read_picture(job, codec, self.options, self.shared.limits)
        encoded = codec.encode_picture(picture, self.options)
        seconds = time.perf_counter() - started
        report = Report(job, _values(encoded, n_frames, seconds, codec))
        if not self.dry_run:
            write_output(job, encoded.data, self.shared)
        if self.verify and job.target is not None:
            check_symbols(job.target, codec, encoded, self.shared.limits)
            report.values["verified"] = True
        return report


def read_picture(
    job: Job, codec: Codec, options: EncodeOptions, limits: Limits
) -> tuple[Picture, int]:
    """The picture of an input file, and how many frames that has.

    What cannot be encoded is refused before its pixels are decoded.
    """
    from bkcodec.codec import READ
    from bkcodec.image.reading import load_pixels, n_frames, open_header, picture_from_image
    from bkcodec.tiling import check_pixels

    file = io.BytesIO(read_whole(job.source, limits.max_file_bytes))
    image = open_header(file, limits)
    check_pixels(*image.size, codec.coder.stride, limits)  # as a reader will
    codec.check_memory(*image.size, options.tile, beside=READ)
    load_pixels(image, file)
    return picture_from_image(image), n_frames(image)


def check_symbols(path: Path, codec: Codec, encoded: Encoded, limits: Limits) -> None:
    """Read a file back and compare its symbols with those that were coded.

    Raises:
        BkcError: they differ.
    """
    from bkcodec.container import container_from_bytes
    from bkcodec.inspection import read_symbols

    _, symbols = read_symbols(container_from_bytes(path.read_bytes(), limits), codec.bundle)
    if not (symbols == encoded.symbols).all():
        raise BkcError(f"{printable(path)}: verification failed, the symbols differ")


def _values(encoded: Encoded, n_frames: int, seconds: float, codec: Codec) -> dict[str, object]:
    """What there is to report of an encoded file."""
    c, n_bytes = encoded.container, len(encoded)
    values: dict[str, object] = {
        "width": c.width,
        "height": c.height,
        "bytes": n_bytes,
        "bpp": round(8 * n_bytes / (c.width * c.height), 6),
        "quality": level_to_quality(c.level),
        "seconds": round(seconds, 4),
        "device": codec.device,
    }
    return values | ({"frames_left_out": n_frames - 1} if n_frames > 1 else {})
