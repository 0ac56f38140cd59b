"""The options that encode and decode share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from bkcodec.commands import completion
from bkcodec.commands.paths import Plan, is_folder
from bkcodec.commands.values import tile
from bkcodec.errors import UsageError
from bkcodec.options import DEVICES, UNETS, Backbone, Limits, at_most_one
from bkcodec.remote import Url, without_file


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
    keep_extension: bool
    as_json: bool
    quiet: bool
    verbose: bool

    @property
    def backbone(self) -> Backbone:
        """Where pretrained parts come from."""
        return Backbone(self.bk_sdm, self.vae, self.unet)

    @property
    def limits(self) -> Limits:
        """What is accepted."""
        return Limits(max_pixels=self.max_pixels)

    def check(self, inputs: Iterable[str], plan: Plan) -> None:
        """Refuse options that do not go together, or do not apply (UsageError)."""
        at_most_one(**{"--force": self.force, "--skip-existing": self.skip_existing})
        at_most_one(**{"--quiet": self.quiet, "--verbose": self.verbose})
        to_stdout = any(job.target is None for job in plan.jobs)
        flags = {"json": self.as_json, "force": self.force, "skip-existing": self.skip_existing}
        for flag, is_set in flags.items():
            if is_set and to_stdout:
                raise UsageError(f"--{flag} does not apply to standard output")
        if self.recursive and not any(is_folder(name) for name in inputs):
            raise UsageError("--recursive needs a directory as input")
        places = [place for job in plan.jobs for place in (job.source, job.target)]
        if self.keep_mtime and (None in places or any(isinstance(p, Url) for p in places)):
            raise UsageError("--keep-mtime needs files, not URLs, standard input or output")


_OPTIONS = (
    click.option(
        "-v", "--verbose", is_flag=True, help="Show the log, and the traceback of each error."
    ),
    click.option("--quiet", is_flag=True, help="Print errors only."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object per file to standard output."
    ),
    click.option(
        "--keep-mtime", is_flag=True, help="Give each output the modification time of its input."
    ),
    click.option(
        "--keep-extension",
        is_flag=True,
        help="Add the new extension to the input's name instead of replacing the old one.",
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
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Files, or members of a tar shard, to work on at the same time, at most one per core; "
        "0 = one per core.",
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
        shell_complete=completion.files,
        help="File or directory to write (a directory exists or ends in /); - for standard output.",
    ),
)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command; it gets them as one ``Shared``, named ``shared``."""

    @functools.wraps(command)
    def with_shared(**given: Any) -> Any:
        given["inputs"] = tuple(map(without_file, given["inputs"]))
        given["output"] = given["output"] and without_file(given["output"])
        shared = Shared(**{f.name: given.pop(f.name) for f in fields(Shared)})
        return command(shared=shared, **given)

    wrapped: Callable[..., Any] = with_shared
    for option in _OPTIONS:
        wrapped = option(wrapped)
    return wrapped


def check_search(effort: int, tune: str | None, lpips: Path | None, unet: str) -> None:
    """Refuse options of a search where there is none (UsageError)."""
    if tune is not None and not effort:
        raise UsageError("--tune matters to a search: --effort 1 to 9")
    if (tune == "lpips") != (lpips is not None):
        raise UsageError("--tune lpips needs --lpips FILE, and nothing else does")
    if unet != "auto" and not effort:
        raise UsageError("--unet matters to encoding with --effort only")
