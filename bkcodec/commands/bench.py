"""``bkcodec bench`` and ``bkcodec plot``: the options, and what they start."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bkcodec.commands import completion
from bkcodec.commands.values import names, positive_range, qualities
from bkcodec.errors import BkcError, InputError, UsageError, extra
from bkcodec.files import printable
from bkcodec.options import DEVICES

if TYPE_CHECKING:
    from bkcodec.bench.cells import Cell
    from bkcodec.bench.report.published import Curve
    from bkcodec.bench.report.results import Outcome
    from bkcodec.bench.run import Bench

FILE = click.Path(path_type=Path)
REPORT = "report.html"
PACKAGES = ("bjontegaard", "matplotlib", "pytorch_msssim", "torchvision")
MAX_LINES = 20  # of failures, or of names, that are printed one by one


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for; the fields are the options of ``bkcodec bench``."""

    models: tuple[str, ...]
    ladder: list[float] | None
    peers: list[str] | None
    metrics: list[str] | None
    lpips: tuple[Path, ...]
    overlays: tuple[Path, ...]
    avif_speed: int
    repetitions: int
    jobs: int
    device: str
    rates_within: tuple[float, float] | None
    output: Path | None
    save_samples: bool
    resume: bool
    as_json: bool
    verbose: bool


@click.command(
    short_help="Compare bundles with other codecs on a folder of photos.",
    context_settings={"max_content_width": 100},
)
@click.argument("dataset", type=FILE)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    default=["lite"],
    show_default=True,
    metavar="NAME[@OPTION=VALUE,...]",
    shell_complete=completion.bundles,
    help="A bundle to test, by name or file, and how to encode, as in lite@effort=2; may be given "
    "several times.",
)
@click.option(
    "-q",
    "--qualities",
    "ladder",
    type=qualities,
    metavar="LIST",
    help="Qualities at which the bundles are tested.  [default: 5,20,35,50,70,90]",
)
@click.option(
    "--peers",
    type=names,
    metavar="LIST",
    help="Codecs to compare with: jpeg, webp, avif (tuned for images), avif-ssim, jxl, jpeg2000, "
    "zoo:ARCHITECTURE, or none.  "
    "[default: all that Pillow has]",
)
@click.option(
    "--metrics",
    type=names,
    metavar="LIST",
    help="psnr, psnr-y, ms-ssim, lpips-..., ssimulacra2, butteraugli.  [default: all that are "
    "available; ssimulacra2 by libjxl's program only, as the package of it is slow]",
)
@click.option(
    "--lpips",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Safetensors file of LPIPS weights; may be given several times.",
)
@click.option(
    "--overlay",
    "overlays",
    multiple=True,
    type=FILE,
    metavar="JSON",
    help="Published curves to draw too, in the schema of CompressAI.",
)
@click.option(
    "--avif-speed",
    type=click.IntRange(0, 10),
    default=6,
    show_default=True,
    help="Speed of the AVIF peers; lower is slower and gives smaller files.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How often each timing is taken; the median counts. Slow ones are taken less often.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Pictures to work on at the same time; more than 1 disturbs the times.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Device that runs the networks.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="DIR",
    help="Folder for results.json, detailed.json, results.csv, plots and report.html.",
)
@click.option(
    "--range",
    "rates_within",
    type=positive_range,
    metavar="LOW:HIGH",
    help="Bits per pixel over which BD-rates are taken.  [default: all that both codecs reach]",
)
@click.option(
    "--save-samples",
    is_flag=True,
    help="Keep coded files and decoded pictures in the output folder.",
)
@click.option("--resume", is_flag=True, help="Go on with the benchmark in the output folder.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the detailed results as JSON to standard output."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def bench(dataset: Path, **given: Any) -> None:
    """Compare bundles with other codecs on a folder of photos (needs bkcodec[bench]).

    Every picture is written to a file, which another process decodes.
    """
    request = Request(**given)
    folder = request.output
    needs_folder = {
        "--save-samples": request.save_samples,
        "--resume": request.resume,
        "--overlay": request.overlays,
    }
    for flag, is_set in needs_folder.items():
        if folder is None and is_set:
            raise UsageError(f"{flag} needs -o")
    with extra("bench", "this"), tempfile.TemporaryDirectory(prefix="bkcodec-bench-") as temporary:
        from bkcodec.bench.report.style import elsewhere

        with elsewhere():
            for package in PACKAGES:  # missing ones are to be found before anything is measured
                importlib.import_module(package)
        plan = _plan(dataset, request, Path(temporary))
        overlays = _overlays(request.overlays, {c.name for c in plan.candidates})
        outcome = _measure(plan, dataset, request, overlays)
        if folder is not None:
            _write(outcome, plan, folder)
            click.echo(f"bkcodec: the report is {printable(folder / REPORT)}", err=True)
    if request.as_json:
        click.echo(json.dumps(outcome.detailed(), allow_nan=False))
    else:
        from bkcodec.bench.report.terminal import show

        show(outcome)
    for name, why in outcome.dataset.skipped:
        click.echo(f"bkcodec: skipped {printable(name)}: {printable(why)}", err=True)
    troubled = [cell for cell in outcome.cells if cell.trouble]
    for cell in troubled[:MAX_LINES]:
        text = f"{cell.codec} q {cell.quality:g}, {cell.image}: {cell.trouble}"
        click.echo(f"bkcodec: error: {printable(text)}", err=True)
    if troubled:
        raise BkcError(f"{len(troubled)} of {len(outcome.cells)} cells failed")


def _plan(dataset: Path, request: Request, temporary: Path) -> Bench:
    """Everything that can be refused is refused here, before the output folder is made."""
    from bkcodec.bench import run
    from bkcodec.bench.codecs import DEFAULT_QUALITIES, bundles, default_peers, peers
    from bkcodec.bench.dataset import prepare
    from bkcodec.bench.metrics import find_metrics
    from bkcodec.bench.report.pictures import PictureStore
    from bkcodec.machine import pick_device

    folder = request.output
    if folder is not None:
        run.check_folder(folder, request.resume)
    device = pick_device(request.device).type
    peer_names = request.peers if request.peers is not None else default_peers()
    ladder = request.ladder or DEFAULT_QUALITIES
    codecs = bundles(request.models, ladder, device)
    codecs += peers(peer_names, request.avif_speed, device)
    names = [codec.name for codec in codecs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UsageError(f"two codecs are called {', '.join(twice)}; rename the bundle's file")
    metrics = find_metrics(request.metrics, request.lpips)
    photos = prepare(dataset, temporary)
    pictures = None
    if folder is not None:
        pictures = PictureStore(folder / "pictures", photos.photos, codecs)
    return run.Bench(
        codecs,
        photos,
        metrics,
        folder,
        pictures,
        request.repetitions,
        request.jobs,
        request.save_samples,
    )


def _overlays(paths: tuple[Path, ...], taken: set[str]) -> list[Curve]:
    """Published curves, with names that no measured codec has."""
    from bkcodec.bench.report.published import distinct, read_curves

    curves = distinct([read_curves(path) for path in paths])
    return [replace(c, name=f"{c.name} ({c.source})") if c.name in taken else c for c in curves]


def _measure(plan: Bench, dataset: Path, request: Request, overlays: list[Curve]) -> Outcome:
    from bkcodec.bench import run
    from bkcodec.bench.report import summary
    from bkcodec.bench.report.results import Outcome

    with _progress(len(plan.cells())) as report:
        cells, statistics = run.run(plan, request.resume, report)
    points = summary.points(cells, plan.candidates)
    tested = {c.name for c in plan.candidates if c.kind == "bundle"}
    codecs = [c.name for c in plan.candidates if c.kind != "ceiling"]
    matrix = summary.bd_rates(points, codecs, plan.metrics, request.rates_within)
    device = plan.candidates[0].device
    settings = {
        "repetitions": plan.repetitions,
        "jobs": plan.n_jobs,
        "device": device,
        "range": request.rates_within,
    }
    return Outcome(
        printable(dataset.resolve().name),
        plan.dataset,
        plan.candidates,
        plan.metrics,
        cells,
        points,
        [rate for rate in matrix if rate.codec in tested],
        matrix,
        statistics,
        overlays,
        settings,
    )


def _write(outcome: Outcome, plan: Bench, folder: Path) -> None:
    from bkcodec.bench.report.curves import measured, plot
    from bkcodec.bench.report.page import write_report

    downloads = outcome.write(folder)
    codecs = [c.name for c in outcome.candidates if c.kind != "ceiling"]
    curves = measured(outcome.points, codecs, outcome.metrics) + list(outcome.overlays)
    for metric in outcome.metrics:
        if any(metric.name in curve.metrics for curve in curves):  # else all too small for it
            paths = [folder / f"rd-{metric.name}.{kind}" for kind in ("svg", "png")]
            plot(curves, metric.name, outcome.dataset_name, paths)
            downloads.append(paths[0])
    assert plan.pictures is not None
    write_report(outcome, plan.pictures, downloads, folder / REPORT)


@click.command(
    short_help="Draw the curves of several benchmarks into one plot.",
    context_settings={"max_content_width": 100},
)
@click.argument("results", nargs=-1, required=True, type=FILE, metavar="RESULTS.JSON...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="FILE",
    help="The plot: a .svg or .png file.",
)
@click.option("--metric", default="psnr", show_default=True, help="The metric to draw.")
@click.option("--title", default="Rate and distortion", show_default=True)
@click.option("-f", "--force", is_flag=True, help="Overwrite the output if it exists.")
def plot(results: tuple[Path, ...], output: Path, metric: str, title: str, force: bool) -> None:
    """Draw the curves of several runs into one plot (results.json, or CompressAI's files)."""
    if output.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"{output}: must end in .svg or .png")
    if output.exists() and not force:
        raise InputError(f"{output}: exists already; --force overwrites it")
    with extra("bench", "this"):
        from bkcodec.bench.report import published
        from bkcodec.bench.report.curves import plot as draw

        curves = published.distinct([published.read_curves(path) for path in results])
        available = published.metric_names(curves)
        if not available:
            raise InputError(f"{results[0]}: there is no curve to draw")
        if metric not in available:
            raise UsageError(f"no curve of {metric}; there are {', '.join(available[:MAX_LINES])}")
        draw(curves, metric, title, [output])
    click.echo(f"bkcodec: the plot is {printable(output)}", err=True)


@contextmanager
def _progress(n_cells: int) -> Iterator[Callable[[Cell], None]]:
    """A bar with the time left on a terminal; elsewhere a line each tenth."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=n_cells)
        done = 0

        def report(cell: Cell) -> None:
            nonlocal done
            done += 1
            progress.update(
                task, advance=1, description=printable(f"{cell.codec} q {cell.quality:g}")
            )
            if not console.is_terminal and done * 10 // n_cells > (done - 1) * 10 // n_cells:
                click.echo(f"bkcodec: {done} of {n_cells} cells", err=True)

        yield report
