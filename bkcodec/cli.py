"""The command line: parse, call, print. Only this module exits."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bkcodec import __version__
from bkcodec.bench.command import bench, plot
from bkcodec.catalogue import models
from bkcodec.config import Backbone, DecodeOptions, EncodeOptions, Limits
from bkcodec.container import MAGIC
from bkcodec.errors import BkcError, UsageError
from bkcodec.files import IMAGE_SUFFIXES, STREAM, Job, is_directory, plan, printable, read_input
from bkcodec.jobs import Report, WriteOptions, decode_file, encode_file, exit_code, run_all
from bkcodec.options import byte_size, strip, tile
from bkcodec.selftest import selftest
from bkcodec.train.command import train

if TYPE_CHECKING:
    from bkcodec.codec import Codec
    from bkcodec.container import Container

EXTENSION = ".bkc"
FORMATS = ("png", "jpg", "webp", "ppm", "tiff")
BY_SUFFIX = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp", ".ppm": "ppm",
             ".tif": "tiff", ".tiff": "tiff"}  # fmt: skip
INTERRUPTED, TERMINATED = 130, 143


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that encode and decode have in common."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Show tracebacks and the log."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a file on stdout."),
        click.option("--keep-mtime", is_flag=True, help="Give outputs the input's time."),
        click.option("-f", "--force", is_flag=True, help="Overwrite existing outputs."),
        click.option("--skip-existing", is_flag=True, help="Leave inputs whose output exists."),
        click.option("-r", "--recursive", is_flag=True, help="Look into subdirectories."),
        click.option("--max-pixels", type=click.IntRange(0), default=Limits().max_pixels,
                     show_default=True, help="Refuse larger images; 0 = no limit."),
        click.option("--tile", type=tile, metavar="auto|off|PX", default="auto", show_default=True,
                     help="Side of the tiles of big images."),
        click.option("-j", "--jobs", type=click.IntRange(1), default=1, show_default=True,
                     help="Files at a time, at most one a core."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
                     show_default=True, help="Where the networks run."),
        click.option("--unet", type=click.Choice(["auto", "own", "bk-sdm"]), default="auto",
                     show_default=True, help="Which denoiser: the backbone's or the bundle's own."),
        click.option("--vae", metavar="DIR|NAME", help="Another VAE for the backbone's latents."),
        click.option("--bk-sdm", metavar="DIR|NAME|OWNER/NAME@COMMIT",
                     help="Backbone, for bundles that need one.  [default: $BKCODEC_BK_SDM]"),
        click.option("-o", "--output", metavar="PATH",
                     help="A file, a directory (ends in / or exists), or - for stdout."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="bkcodec")
def main() -> None:
    """A learned image codec: photos to .bkc files of a few kilobytes, and back."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-q", "--quality", type=click.FloatRange(0, 100), help="0..100, higher is better; default 50."
)
@click.option(
    "--target-bpp", type=click.FloatRange(0, min_open=True), help="Largest allowed bits a pixel."
)
@click.option(
    "--target-size", type=byte_size, metavar="N[k|M]", help="Largest allowed file size in bytes."
)
@click.option("-m", "--model", default="lite", show_default=True, help="Name or file of a bundle.")
@click.option(
    "--strip", type=strip, metavar="exif,xmp,icc,all", default="", help="Metadata to leave out."
)
@click.option(
    "--alpha",
    default="keep",
    show_default=True,
    metavar="keep|drop|COLOR",
    help="Keep the alpha plane (lossless), drop it, or blend onto a colour.",
)
@click.option(
    "--effort",
    type=click.IntRange(0, 2),
    default=0,
    show_default=True,
    help="Search what the decoder's U-Net should start from: 1 the timestep, 2 also the seed.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="End the searches of --target-* and --effort with the best so far.",
)
@click.option("--dry-run", is_flag=True, help="Encode, report, write nothing.")
@click.option("--verify", is_flag=True, help="Read back what was written, compare the symbols.")
@_shared
def encode(inputs: tuple[str, ...], **given: Any) -> None:
    """Encode photos to .bkc files (INPUT: files, directories, or - for stdin)."""
    g = _Given(given)
    wishes = [n for n in ("quality", "target_bpp", "target_size") if g[n] is not None]
    if len(wishes) > 1:
        flags = " and ".join("--" + wish.replace("_", "-") for wish in wishes)
        raise UsageError(f"{flags} exclude each other")
    for flag in ("verify", "keep_mtime"):
        if g["dry_run"] and g[flag]:
            raise UsageError(f"--{flag.replace('_', '-')} has no file to work on with --dry-run")
    jobs = plan(inputs, g["output"], EXTENSION, IMAGE_SUFFIXES, g["recursive"])
    _check_shared(g, inputs, jobs)
    if g["verify"] and any(job.target is None for job in jobs):
        raise UsageError("--verify cannot read back standard output")
    if g["timeout"] is not None and not (g["effort"] or set(wishes) - {"quality"}):
        raise UsageError("--timeout needs a search: --target-bpp, --target-size or --effort")
    if g["unet"] != "auto" and not g["effort"]:
        raise UsageError("--unet matters to encoding with --effort only")
    options = EncodeOptions(
        quality=g["quality"], target_bpp=g["target_bpp"], target_size=g["target_size"],
        model=g["model"], device=g["device"], tile=g["tile"], strip=g["strip"], alpha=g["alpha"],
        effort=g["effort"], timeout=g["timeout"], backbone=g.backbone,
    )  # fmt: skip
    limits = Limits(max_pixels=g["max_pixels"])
    from bkcodec.codec import Codec, check_encode

    check_encode(options)
    codec = Codec(options.model, options.device, options.needed_backbone)
    _run(jobs, lambda job: encode_file(job, codec, options, limits, g.write), g, "Encoding")


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), help="Of the output; needed for -o -."
)
@click.option(
    "--steps",
    type=click.IntRange(1, 50),
    default=1,
    show_default=True,
    help="Denoising steps: 1 is closest to the photo, more give texture.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["ddim", "dpm++", "euler", "lcm"]),
    help="How several steps are taken; default ddim.",
)
@click.option(
    "--realism",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Weight of the denoised latent against the hyper-decoder's mean.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of the noise of several steps.")
@click.option("-m", "--model", help="A bundle file, for .bkc files of bundles not installed.")
@_shared
def decode(inputs: tuple[str, ...], **given: Any) -> None:
    """Decode .bkc files to photos (INPUT: files, directories, or - for stdin)."""
    g = _Given(given)
    if g["steps"] == 1 and (g["scheduler"] is not None or g["seed"] is not None):
        raise UsageError("--scheduler and --seed need --steps 2 or more")
    extension = _output_format(g["format_"], g["output"], inputs)
    jobs = plan(inputs, g["output"], f".{extension}", frozenset({EXTENSION}), g["recursive"])
    _check_shared(g, inputs, jobs)
    options = DecodeOptions(
        steps=g["steps"], scheduler=g["scheduler"] or "ddim", realism=g["realism"], seed=g["seed"],
        device=g["device"], tile=g["tile"], limits=Limits(max_pixels=g["max_pixels"]),
        backbone=g.backbone, model_path=g["model"],
    )  # fmt: skip

    from bkcodec.codec import check_decode, codec_for

    check_decode(options)

    def codec_of(container: Container) -> Codec:
        return codec_for(container, options)

    _run(jobs, lambda job: decode_file(job, codec_of, options, extension, g.write), g, "Decoding")


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file on stdout.")
@click.option("--verify", is_flag=True, help="Decode the symbols too and print their SHA-256.")
@click.option("--extract", type=click.Choice(["exif", "xmp", "icc"]), help="Write out metadata.")
@click.option("-o", "--output", metavar="FILE", help="Where --extract writes; - for stdout.")
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing output.")
@click.option("-m", "--model", help="A bundle file, for --verify of bundles not installed.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
def info(files: tuple[str, ...], **given: Any) -> None:
    """Show what a .bkc file says about itself, without decoding it."""
    from bkcodec import inspection

    if bool(given["extract"]) != bool(given["output"]):
        raise UsageError("--extract and -o go together")
    if given["extract"] and len(files) > 1:
        raise UsageError("--extract takes one file")
    if given["extract"] and given["as_json"]:
        raise UsageError("--extract and --json exclude each other")
    if given["force"] and not given["extract"]:
        raise UsageError("--force only matters with --extract")
    if given["output"] not in (None, STREAM) and _same_file(files[0], given["output"]):
        raise UsageError(f"{printable(given['output'])} is the input; it would be overwritten")
    if given["model"] and not given["verify"]:
        raise UsageError("--model only matters with --verify")

    def describe(job: Job) -> Report:
        data = read_input(job, inspection.NO_PIXEL_LIMIT.max_file_bytes, MAGIC)
        if given["extract"]:
            inspection.extract(data, given["extract"], given["output"], given["force"])
        return Report(job, inspection.info(data, given["verify"], given["model"]))

    reports = []
    for report in run_all([_info_job(name) for name in files], describe, 1):
        reports.append(report)
        if report.error is not None:
            _print_error(report, given["verbose"])
            if given["as_json"]:
                click.echo(json.dumps({"file": report.job.name, "error": str(report.error)}))
        elif given["as_json"]:
            click.echo(json.dumps({"file": report.job.name} | report.values))
        elif not given["extract"]:
            click.echo(inspection.text(report.job.name, report.values))
    _exit(reports)


def _same_file(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _info_job(name: str) -> Job:
    return Job(None if name == STREAM else Path(name), None)


for command in (bench, models, plot, selftest, train):
    main.add_command(command)


class _Given(dict[str, Any]):
    """The options as click parsed them."""

    @property
    def backbone(self) -> Backbone:
        return Backbone(self["bk_sdm"], self["vae"], self["unet"])

    @property
    def write(self) -> WriteOptions:
        return WriteOptions(
            self["force"], self["skip_existing"], self["keep_mtime"],
            self.get("dry_run", False), self.get("verify", False),
        )  # fmt: skip


def _check_shared(g: _Given, inputs: Iterable[str], jobs: list[Job]) -> None:
    if g["force"] and g["skip_existing"]:
        raise UsageError("--force and --skip-existing exclude each other")
    if any(job.target is None for job in jobs):
        for name in ("as_json", "force", "skip_existing"):
            if g[name]:
                flag = {"as_json": "json"}.get(name, name.replace("_", "-"))
                raise UsageError(f"--{flag} does not apply to standard output")
    if g["recursive"] and not any(Path(name).is_dir() for name in inputs):
        raise UsageError("--recursive needs a directory as input")
    if g["keep_mtime"] and any(job.source is None or job.target is None for job in jobs):
        raise UsageError("--keep-mtime needs files, not standard input or output")


def _output_format(wanted: str | None, output: str | None, inputs: Iterable[str]) -> str:
    """The decoded format: --format, or the output's extension, or PNG."""
    to_stdout = output == STREAM or (output is None and STREAM in inputs)
    if to_stdout:
        if wanted is None:
            raise UsageError("decoding to standard output needs --format")
        return wanted
    if output is None or is_directory(output):
        return wanted or "png"
    suffix = Path(output).suffix.lower()
    implied = BY_SUFFIX.get(suffix)
    if wanted and implied and implied != wanted:
        raise UsageError(f"--format {wanted} contradicts the output name {printable(output)}")
    if not (wanted or implied):
        raise UsageError(
            f"{printable(output)}: unknown extension; use .png, .jpg, .webp, .ppm, .tiff"
        )
    return wanted or implied or "png"


def _run(jobs: list[Job], work: Callable[[Job], Report], g: _Given, verb: str) -> None:
    """Run all jobs with a progress bar, print a line or an error for each, exit."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    if g["verbose"]:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    cores = torch.get_num_threads()
    n_jobs = min(g["jobs"], len(jobs), cores)  # more would only wait for one another
    torch.set_num_threads(cores // n_jobs)
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)
    reports = []
    show = console.is_terminal and len(jobs) > 1
    with Progress(console=console, transient=True, disable=not show) as progress:
        task = progress.add_task(verb, total=len(jobs))
        for report in run_all(jobs, work, n_jobs):
            reports.append(report)
            progress.advance(task)
            if g["as_json"]:
                click.echo(json.dumps(report.as_dict()))
            if report.error is not None:
                _print_error(report, g["verbose"])
            elif not g["as_json"]:
                console.print(report.line())
    failed = sum(report.error is not None for report in reports)
    if failed and len(jobs) > 1:
        console.print(f"{failed} of {len(jobs)} files failed")
    _exit(reports)


def _print_error(report: Report, verbose: bool) -> None:
    error = report.error
    assert error is not None
    if verbose:
        click.echo("".join(traceback.format_exception(error)), err=True)
    expected = isinstance(error, BkcError)
    text = str(error) if expected else f"unexpected {type(error).__name__}: {error}"
    name = printable(report.job.name)
    subject = "" if text.startswith(name) else f"{name}: "
    click.echo(f"bkcodec: error: {subject}{printable(text)}", err=True)


def _exit(reports: list[Report]) -> None:
    errors = [report.error for report in reports if report.error is not None]
    if errors:
        raise SystemExit(exit_code(errors[0]) if len(reports) == 1 else 1)


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)  # an exception, so that temporary files go


def run() -> None:
    """Entry point of the ``bkcodec`` command."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" See {context.command_path} --help." if context else ""
        message = printable(error.format_message()).rstrip(".")
        click.echo(f"bkcodec: error: {message}.{hint}", err=True)
        sys.exit(error.exit_code)
    except BkcError as error:
        click.echo(f"bkcodec: error: {printable(error)}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("bkcodec: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # a bug, or a system that says no where nobody asked it
        if "-v" in sys.argv or "--verbose" in sys.argv:
            traceback.print_exc()
        text = printable(f"unexpected {type(error).__name__}: {error}")
        click.echo(f"bkcodec: error: {text}", err=True)
        sys.exit(1)
