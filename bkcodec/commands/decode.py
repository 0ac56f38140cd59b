"""``bkcodec decode``: .bkc files to photos."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from bkcodec.commands import completion
from bkcodec.commands.batch import Report, Work, run_batch, write_output
from bkcodec.commands.help import BACKBONE, MACHINE, MANY, OUTPUT, Group, GroupedCommand
from bkcodec.commands.paths import EXTENSION, Job, Naming, is_directory, is_folder, plan
from bkcodec.commands.shared import Shared, shared_options
from bkcodec.commands.tar import SHARDS, Change, Shards, run_shards, shard_options
from bkcodec.commands.values import Number
from bkcodec.container import Container, container_from_bytes, read_path
from bkcodec.errors import UsageError
from bkcodec.files import STREAM, printable
from bkcodec.options import (
    MAX_SEED,
    MAX_STEPS,
    SCHEDULERS,
    DecodeOptions,
    check_alpha,
    level_to_quality,
)
from bkcodec.remote import Url
from bkcodec.shards.names import renaming

if TYPE_CHECKING:
    from bkcodec.codec import Codec

FORMATS = ("png", "jpg", "jpeg", "webp", "ppm", "tiff", "tif")
SAME = {"jpeg": "jpg", "tif": "tiff"}
BY_SUFFIX = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".ppm": "ppm",
    ".tif": "tiff",
    ".tiff": "tiff",
}


class _Decode(GroupedCommand):
    groups = (
        Group(
            "The picture",
            "photo.bkc --format jpg --jpeg-quality 90",
            ("format_", "png_effort", "jpeg_quality", "alpha"),
        ),
        Group(
            "Denoising",
            "photo.bkc --steps 4 --seed 7",
            ("steps", "scheduler", "realism", "seed"),
        ),
        replace(MANY, example="small/ -r -o photos/ -j 0"),
        replace(SHARDS, example="'shard-{000..099}.tar' -o large/ --format jpg"),
        replace(MACHINE, example="photo.bkc --max-pixels 0"),
        replace(BACKBONE, example="photo.bkc --bk-sdm DIR"),
        replace(OUTPUT, example="small/ --json"),
    )


@click.command(cls=_Decode)
@click.argument(
    "inputs", nargs=-1, required=True, metavar="INPUT...", shell_complete=completion.files
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="Format of the pictures; needed with -o -.  [default: by the output's name, or png]",
)
@click.option(
    "--steps",
    type=click.IntRange(1, MAX_STEPS),
    default=1,
    show_default=True,
    help="Denoising steps: 1 is closest to the photo, more add texture.",
)
@click.option(
    "--scheduler",
    type=click.Choice(SCHEDULERS),
    help="How several steps are taken; others than ddim need bkcodec[torch].  [default: ddim]",
)
@click.option(
    "--realism",
    type=Number(0, 1),
    help="How much of the denoising to apply: 0 takes what the hyper-decoder says, 1 the U-Net.  "
    "[default: 1; bk-sdm: 0.5 to 1 by quality]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Seed of the noise when --steps is above 1.  [default: what the file says]",
)
@click.option(
    "--png-effort",
    type=click.IntRange(1, 9),
    help="How hard PNG files are compressed: 1 is fast, 9 slow and a little smaller.  [default: 1]",
)
@click.option(
    "--jpeg-quality",
    type=click.IntRange(1, 100),
    help="Quality of JPEG files; from 90 on colours keep their resolution.  [default: 95]",
)
@click.option(
    "--alpha",
    default="keep",
    show_default=True,
    metavar="keep|drop|COLOR",
    help="Write the alpha plane, leave it out, or blend the picture onto a colour.",
)
@click.option(
    "-m",
    "--model",
    shell_complete=completion.bundles,
    help="The bundle's file, where the one that a .bkc file needs is not installed.",
)
@shard_options
@shared_options
def decode(
    inputs: tuple[str, ...],
    format_: str | None,
    steps: int,
    scheduler: str | None,
    realism: float | None,
    seed: int | None,
    png_effort: int | None,
    jpeg_quality: int | None,
    alpha: str,
    model: str | None,
    shards: Shards,
    shared: Shared,
) -> None:
    """Decode .bkc files, also those in tar shards, into pictures.

    INPUT is a file, a directory, or - for standard input; several may be given.
    """
    if steps == 1 and (scheduler is not None or seed is not None):
        raise UsageError("--scheduler and --seed need --steps 2 or more")
    in_shards = shards.are_meant(inputs, shared, frozenset({EXTENSION}))
    extension = SAME.get(format_ or "", format_) or "png"
    if not in_shards:
        extension = output_format(format_ and extension, shared.output, inputs)
    for option, value, kind in (
        ("--png-effort", png_effort, "png"),
        ("--jpeg-quality", jpeg_quality, "jpg"),
    ):
        if value is not None and extension != kind:
            raise UsageError(f"{option} does not apply to {extension} files")
    check_alpha(alpha)
    options = DecodeOptions(
        steps=steps,
        scheduler=scheduler or "ddim",
        realism=realism,
        seed=seed,
        device=shared.device,
        tile=shared.tile,
        limits=shared.limits,
        backbone=shared.backbone,
        model_path=model,
    )
    style = Style(extension, png_effort, jpeg_quality, alpha)
    if in_shards:
        renamed = renaming((EXTENSION[1:],), extension, shared.keep_extension)
        run_shards(inputs, shards, shared, renamed, lambda: _change(options, style), "Decoding")
        return
    naming = Naming(shared.output, f".{extension}", shared.keep_extension)
    jobs = plan(inputs, naming, frozenset({EXTENSION}), shared.recursive)
    shared.check(inputs, jobs)
    run_batch(jobs, lambda _: _work(options, style, shared), shared, "Decoding")


@dataclass(frozen=True, slots=True)
class Style:
    """How pictures are written."""

    extension: str
    png_effort: int | None
    jpeg_quality: int | None
    alpha: str

    def writer(
        self, codec: Codec, container: Container, options: DecodeOptions
    ) -> tuple[Callable[[BinaryIO], None], list[str]]:
        """What writes a picture into an open file, and notes of what is lost in it."""
        from bkcodec.image.picture import flattened
        from bkcodec.image.writing import JPEG_QUALITY, PNG_EFFORT, WHOLE, save_rows, writable

        rows = codec.decode_rows(container, options, whole=self.extension in WHOLE)
        rows, notes = writable(flattened(rows, self.alpha), self.extension)
        efforts = self.png_effort or PNG_EFFORT, self.jpeg_quality or JPEG_QUALITY
        return lambda file: save_rows(rows, file, self.extension, *efforts), notes


def _change(options: DecodeOptions, style: Style) -> Change:
    """Decodes one .bkc file of a tar shard after the other."""
    from bkcodec.codec import codec_for

    def change(data: bytes) -> bytes:
        container = container_from_bytes(data, options.limits)
        write, _ = style.writer(codec_for(container, options), container, options)
        file = io.BytesIO()
        write(file)
        return file.getvalue()

    return change


def _work(options: DecodeOptions, style: Style, shared: Shared) -> Work:
    """Decodes one file after the other."""
    from bkcodec.codec import codec_for

    def work(job: Job) -> Report:
        data = read_path(job.source, options.limits)
        container = container_from_bytes(data, options.limits)
        codec = codec_for(container, options)
        started = time.perf_counter()
        write, notes = style.writer(codec, container, options)
        write_output(job, write, shared)
        values = {
            "width": container.width,
            "height": container.height,
            "seconds": round(time.perf_counter() - started, 4),
            "quality": level_to_quality(container.level),
            "device": codec.device,
            "bytes_before": len(data),
            "notes": notes,
        }
        if isinstance(job.target, Url):
            values["bytes_after"] = job.target.n_bytes()
        elif job.target is not None and job.target.is_file():
            values["bytes_after"] = job.target.stat().st_size
        return Report(job, values)

    return work


def output_format(chosen: str | None, output: str | None, inputs: Iterable[str]) -> str:
    """The decoded format: --format, or the output's extension, or PNG.

    Raises:
        UsageError: it cannot be told, or the two contradict each other.
    """
    to_stdout = output == STREAM or (output is None and STREAM in inputs)
    if to_stdout:
        if chosen is None:
            raise UsageError("decoding to standard output needs --format")
        return chosen
    is_tree = any(is_folder(text) for text in inputs if text)
    if output is None or is_directory(output) or is_tree:
        return chosen or "png"
    implied = BY_SUFFIX.get(Path(output).suffix.lower())
    if chosen and implied and implied != chosen:
        raise UsageError(f"--format {chosen} contradicts the output name {printable(output)}")
    if not (chosen or implied):
        raise UsageError(
            f"{printable(output)}: unknown extension; use .png, .jpg, .webp, .ppm, .tiff"
        )
    return chosen or implied or "png"
