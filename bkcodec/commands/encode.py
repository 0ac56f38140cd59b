"""``bkcodec encode``: photos to .bkc files."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bkcodec.commands import completion
from bkcodec.commands.batch import Report, run_batch, silent, write_output
from bkcodec.commands.help import BACKBONE, MACHINE, MANY, OUTPUT, Group, GroupedCommand
from bkcodec.commands.paths import EXTENSION, Job, Naming, Plan, is_directory, plan
from bkcodec.commands.regions import Marks, region_options, scaled_map
from bkcodec.commands.shared import Shared, check_search, shared_options
from bkcodec.commands.sources import Source, read_source, source_from_bytes
from bkcodec.commands.tar import SHARDS, Shards, run_shards, shard_options
from bkcodec.commands.values import Number, byte_size, strip
from bkcodec.container import container_from_bytes, extra_bytes, read_path
from bkcodec.errors import BkcError, UsageError
from bkcodec.files import IMAGE_SUFFIXES, printable
from bkcodec.options import (
    MAX_EFFORT,
    TUNES,
    EncodeOptions,
    Limits,
    at_most_one,
    level_to_quality,
)
from bkcodec.remote import Url
from bkcodec.shards.names import renaming

if TYPE_CHECKING:
    from bkcodec.codec import Codec, Encoded
    from bkcodec.coding.effort import Tell
    from bkcodec.image.picture import Picture

IN_SHARDS = ("jpg", "jpeg", "png", "webp")  # members that are encoded
NOTABLE = 10  # metadata that is more than one byte of so many is mentioned


class _Encode(GroupedCommand):
    groups = (
        Group(
            "How good, how large",
            "photo.jpg --target-size 20k",
            (
                *("quality", "target", "target_bpp", "target_size", "effort", "tune"),
                *("lpips", "timeout", "max_side", "measure"),
            ),
        ),
        Group(
            "Where it matters",
            "photo.jpg --target-size 20k --roi 300,120,200,250",
            ("regions", "quality_map", "adapt"),
        ),
        Group(
            "What goes along",
            "photo.jpg --strip gps,xmp",
            ("strip", "keep_thumbnail", "alpha", "accept_damaged"),
        ),
        MANY,
        SHARDS,
        Group("Care", "photo.jpg --verify", ("verify", "dry_run")),
        MACHINE,
        BACKBONE,
        OUTPUT,
    )


@click.command(cls=_Encode)
@click.argument(
    "inputs", nargs=-1, required=True, metavar="INPUT...", shell_complete=completion.files
)
@click.option(
    "-q",
    "--quality",
    type=Number(0, 100),
    help="0 to 100, the nearest half step; higher is better.  [default: 50]",
)
@click.option(
    "--target",
    metavar="METRIC=VALUE",
    help="The smallest file whose picture reaches this, such as ssimulacra2=70, ms-ssim=0.98 or "
    "psnr=32.",
)
@click.option(
    "--target-bpp",
    type=Number(0, min_open=True),
    help="Largest number of bits per pixel.",
)
@click.option(
    "--target-size",
    type=byte_size,
    metavar="N[k|M|KiB|MiB]",
    help="Largest file size in bytes; 12k is 12,000.",
)
@click.option(
    "-m",
    "--model",
    default="lite",
    show_default=True,
    shell_complete=completion.bundles,
    help="The bundle to encode with, by name or file.",
)
@click.option(
    "--strip",
    type=strip,
    metavar="exif,xmp,icc,gps,thumbnail,all",
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
    help="Search for a smaller and better file: 1 a little, 9 for minutes. Needs PyTorch. With "
    "bk-sdm: 1 for the timestep that denoising starts from, 2 for the seed too.",
)
@click.option(
    "--tune",
    type=click.Choice(tuple(TUNES)),
    help="What the search weighs.  [default: balanced]",
)
@click.option(
    "--lpips",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Weights of LPIPS, for --tune lpips.",
)
@click.option(
    "--timeout",
    type=Number(0),
    metavar="SECONDS",
    help="After this time, searches (--target..., --effort) take the best so far.",
)
@click.option(
    "--max-side",
    type=click.IntRange(1),
    metavar="PX",
    help="Reduce photos whose longer side has more pixels.",
)
@click.option("--keep-thumbnail", is_flag=True, help="Store EXIF's preview even if it is large.")
@click.option("--accept-damaged", is_flag=True, help="Fill what is missing of damaged photos.")
@click.option("--measure", is_flag=True, help="Decode, too, and report PSNR and MS-SSIM.")
@click.option("--dry-run", is_flag=True, help="Encode and report, but write nothing.")
@click.option(
    "--verify", is_flag=True, help="Read back each file that was written and compare its symbols."
)
@shard_options
@region_options
@shared_options
def encode(
    inputs: tuple[str, ...],
    quality: float | None,
    target: str | None,
    target_bpp: float | None,
    target_size: int | None,
    model: str,
    strip: frozenset[str],
    keep_thumbnail: bool,
    max_side: int | None,
    alpha: str,
    effort: int,
    tune: str | None,
    lpips: Path | None,
    timeout: float | None,
    accept_damaged: bool,
    measure: bool,
    dry_run: bool,
    verify: bool,
    shards: Shards,
    marks: Marks,
    shared: Shared,
) -> None:
    """Encode photos, also those in tar shards, into .bkc files.

    INPUT is a file, a directory, or - for standard input; several may be given.
    """
    at_most_one(
        **{"--quality": quality, "--target": target},
        **{"--target-bpp": target_bpp, "--target-size": target_size},
    )
    check_search(effort, tune, lpips, shared.unet)
    options = EncodeOptions(
        quality=quality,
        target=target,
        regions=marks.regions,
        quality_map=marks.read_map(shared.limits),
        adapt=marks.adapt,
        target_bpp=target_bpp,
        target_size=target_size,
        model=model,
        device=shared.device,
        tile=shared.tile,
        strip=strip,
        keep_thumbnail=keep_thumbnail,
        max_side=max_side,
        alpha=alpha,
        effort=effort,
        tune=tune or "balanced",
        lpips=lpips,
        timeout=timeout,
        backbone=shared.backbone,
    )
    if timeout is not None and not (effort or options.has_target):
        raise UsageError("--timeout needs a search: one of the targets, or --effort")
    _run(inputs, options, shards, shared, Extras(accept_damaged, measure, dry_run, verify))


def _run(
    inputs: tuple[str, ...], options: EncodeOptions, shards: Shards, shared: Shared, extras: Extras
) -> None:
    """Encode files, or what is in tar shards."""
    writes = not extras.dry_run
    load = partial(_Work, options, shared, extras)
    if shards.are_meant(inputs, shared, IMAGE_SUFFIXES):
        extras.check_for_shards(shared)
        if options.regions or options.quality_map is not None:
            raise UsageError("--roi and --map are for one picture, not for tar shards")
        renamed = renaming(IN_SHARDS, EXTENSION[1:], shared.keep_extension)
        run_shards(inputs, shards, shared, renamed, lambda: load(silent).change, "Encoding", writes)
        return
    naming = Naming(shared.output, EXTENSION, shared.keep_extension)
    jobs = plan(inputs, naming, IMAGE_SUFFIXES, shared.recursive)
    shared.check(inputs, jobs)
    extras.check(jobs, shared)
    run_batch(jobs, load, shared, "Encoding", writes)


@dataclass(frozen=True, slots=True)
class Extras:
    """What else is done with each file."""

    accept_damaged: bool
    measure: bool
    dry_run: bool
    verify: bool

    def check_for_shards(self, shared: Shared) -> None:
        """Refuse what does not apply to tar shards (UsageError)."""
        flags = {"--measure": self.measure, "--verify": self.verify}
        flags["--keep-mtime with --dry-run"] = self.dry_run and shared.keep_mtime
        for flag, is_set in flags.items():
            if is_set:
                raise UsageError(f"{flag} does not apply to tar shards")

    def check(self, plan: Plan, shared: Shared) -> None:
        """Refuse what does not apply (UsageError)."""
        suffix = Path(shared.output or "").suffix.lower()
        if suffix in IMAGE_SUFFIXES and not is_directory(shared.output or ""):
            raise UsageError(
                f"{printable(shared.output)}: encode writes .bkc files; to convert between other "
                "formats, use another program"
            )
        checks = {"--verify": self.verify, "--keep-mtime": shared.keep_mtime}
        if self.dry_run and any(checks.values()):
            flag = next(flag for flag, is_set in checks.items() if is_set)
            raise UsageError(f"{flag} has no file to work on with --dry-run")
        if self.verify and any(job.target is None for job in plan.jobs):
            raise UsageError("--verify cannot read back standard output")


class _Work:
    """Encodes one file after the other."""

    def __init__(self, options: EncodeOptions, shared: Shared, extras: Extras, tell: Tell) -> None:
        from bkcodec.codec import Codec

        self.options, self.shared, self.extras, self.tell = options, shared, extras, tell
        if options.metric_target is not None:
            options.metric_target.check_installed()
        self.codec = Codec(options.model, options.device, options.needed_backbone)

    def __call__(self, job: Job) -> Report:
        codec, started = self.codec, time.perf_counter()
        damaged, limits = self.extras.accept_damaged, self.shared.limits
        source = read_source(job, codec, self.options, limits, damaged)
        encoded = codec.encode_picture(source.picture, self._options_left(started), tell=self.tell)
        seconds = time.perf_counter() - started
        report = Report(job, _values(encoded, source, seconds, codec))
        report.values |= _reached(encoded, self.options)
        report.values["notes"] += scaled_map(self.options, source.picture.size)
        if self.extras.measure:
            report.values |= measured(source.picture, encoded, self.options, codec)
        if not self.extras.dry_run:
            write_output(job, encoded.data, self.shared)
        if self.extras.verify and job.target is not None:
            check_symbols(job.target, codec, encoded, self.shared.limits)
            report.values["verified"] = True
        return report

    def change(self, data: bytes) -> bytes:
        """A picture in a tar shard -> the .bkc file that it becomes."""
        started = time.perf_counter()
        damaged, limits = self.extras.accept_damaged, self.shared.limits
        source = source_from_bytes(data, self.codec, self.options, limits, damaged)
        return self.codec.encode_picture(source.picture, self._options_left(started)).data

    def _options_left(self, started: float) -> EncodeOptions:
        """The options with what is left of --timeout: reading counts."""
        if self.options.timeout is None:
            return self.options
        left = self.options.timeout - (time.perf_counter() - started)
        return replace(self.options, timeout=max(0.0, left))


def measured(
    picture: Picture, encoded: Encoded, options: EncodeOptions, codec: Codec
) -> dict[str, float | None]:
    """PSNR and MS-SSIM of the decoded picture against what was encoded."""
    import numpy as np

    from bkcodec.image.picture import apply_alpha, reduced
    from bkcodec.metrics import ms_ssim, psnr
    from bkcodec.options import DecodeOptions

    picture = apply_alpha(reduced(picture, options.max_side), options.alpha)
    rows = codec.decode_rows(encoded.container, DecodeOptions(tile=options.tile), whole=True)
    n = 1 if picture.greyscale else 3
    decoded = np.ascontiguousarray(rows.whole()[..., :n])
    original = picture.rgb[..., :n]
    similarity = ms_ssim(original, decoded)
    return {
        "psnr": round(psnr(original, decoded), 4),
        "ms_ssim": None if similarity is None else round(similarity, 6),
    }


def check_symbols(path: Path | Url, codec: Codec, encoded: Encoded, limits: Limits) -> None:
    """Read a file back and compare its symbols with those that were coded.

    Raises:
        BkcError: they differ.
    """
    from bkcodec.inspection import read_symbols

    container = container_from_bytes(read_path(path, limits), limits)
    _, symbols = read_symbols(container, codec.bundle)
    if not (symbols == encoded.symbols).all():
        raise BkcError(f"{printable(path)}: verification failed, the symbols differ")


def _values(encoded: Encoded, source: Source, seconds: float, codec: Codec) -> dict[str, object]:
    """What there is to report of an encoded file."""
    c, n_bytes = encoded.container, len(encoded)
    extras = extra_bytes(c)
    notes = list(source.picture.notes)
    if c.size != source.picture.size:
        notes.append("reduced from {}x{}".format(*source.picture.size))
    if source.n_frames > 1:
        notes.append(f"first of {source.n_frames} frames")
    large = {name: n for name, n in extras.items() if NOTABLE * n > n_bytes}
    if large:
        parts = ", ".join(f"{_name(kind)} {n:,} bytes" for kind, n in large.items())
        notes.append(f"of which {parts}; {_advice(large)}")
    values: dict[str, object] = {
        "width": c.width,
        "height": c.height,
        "bytes": n_bytes,
        "bpp": round(8 * n_bytes / (c.width * c.height), 6),
        "quality": level_to_quality(c.level),
        "seconds": round(seconds, 4),
        "device": codec.device,
        "bytes_before": source.n_bytes,
        "bytes_after": n_bytes,
        "extra_bytes": extras,
        "notes": notes,
    }
    return values | ({"frames_left_out": source.n_frames - 1} if source.n_frames > 1 else {})


def _reached(encoded: Encoded, options: EncodeOptions) -> dict[str, object]:
    """What a metric's target was met with."""
    if encoded.reached is None:
        return {}
    return {"target": options.target, "reached": round(encoded.reached, 6)}


def _name(kind: str) -> str:
    return kind if kind == "alpha" else kind.upper()


def _advice(kinds: Collection[str]) -> str:
    blocks = ",".join(kind for kind in kinds if kind != "alpha")
    words = [f"--strip {blocks}"] if blocks else []
    return " ".join([*words, "--alpha drop"] if "alpha" in kinds else words)
