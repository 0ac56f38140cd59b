"""Working through all cells: encode, decode in another process, measure, remember."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from PIL import Image

from bkcodec.bench import cells as record
from bkcodec.bench.cells import Cell
from bkcodec.bench.codecs import PILLOW, Candidate
from bkcodec.bench.dataset import RUN, Dataset, Photo
from bkcodec.bench.environment import environment
from bkcodec.bench.metrics import Metric
from bkcodec.bench.report.pictures import PictureStore
from bkcodec.bench.workers import Lane, statistics_of
from bkcodec.errors import InputError, first_line
from bkcodec.files import write_whole

SUFFIXES = {"bundle": ".bkc", "zoo": ".bin", "ceiling": ""}  # of files
LONGEST = 80  # characters of a picture's name that its files' names keep


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark to run.

    Attributes:
        candidates: the codecs with their ladders.
        dataset: the pictures.
        metrics: what is measured.
        folder: output folder, or None.
        pictures: keeps pictures for the report, or None.
        repetitions: of each timing, at most.
        n_jobs: cells at a time.
        save_samples: keep coded files and decoded pictures in ``folder``/samples.
    """

    candidates: Sequence[Candidate]
    dataset: Dataset
    metrics: Sequence[Metric]
    folder: Path | None
    pictures: PictureStore | None
    repetitions: int = 3
    n_jobs: int = 1
    save_samples: bool = False

    def cells(self) -> list[Cell]:
        """All cells in order, not yet measured."""
        return [
            Cell(codec.name, quality, photo.name, photo.width, photo.height)
            for codec in self.candidates
            for quality in codec.qualities
            for photo in self.dataset.photos
        ]


def run(
    bench: Bench, resume: bool, report: Callable[[Cell], None]
) -> tuple[list[Cell], dict[str, dict[str, float]]]:
    """Measure every cell; ``report`` hears of each, also of those that an earlier run finished.

    Returns:
        The cells in order, and for each codec load times and memory peaks.

    Raises:
        InputError: the run that is resumed was of other pictures, codecs or conditions.
    """
    finished, statistics = _begin(bench, resume)
    for cell in finished.values():
        report(cell)
    done = dict(finished)
    with tempfile.TemporaryDirectory(prefix="bkcodec-bench-") as temporary:
        for codec in bench.candidates:
            todo = [c for c in bench.cells() if c.codec == codec.name and c.key not in finished]
            if not todo:
                continue
            lanes = [Lane(_share_of(codec, bench.n_jobs)) for _ in range(bench.n_jobs)]
            try:
                with closing(_measure_all(bench, lanes, todo, Path(temporary))) as measured:
                    for cell in measured:
                        done[cell.key] = cell
                        if bench.folder is not None:
                            record.append(bench.folder, cell)
                        report(cell)
            finally:
                for lane in lanes:
                    lane.close()
                statistics[codec.name] = statistics_of(lanes, statistics.get(codec.name, {}))
                _remember(bench, statistics)
    return [done[cell.key] for cell in bench.cells()], statistics


def _share_of(codec: Candidate, n_jobs: int) -> Candidate:
    """The codec with its share of the processors."""
    return replace(codec, threads=max(1, (os.cpu_count() or 1) // n_jobs))


def _measure_all(
    bench: Bench, lanes: list[Lane], todo: list[Cell], temporary: Path
) -> Generator[Cell, None, None]:
    """Measure cells, one per lane at a time; closing it, or an exception, ends the workers."""
    photos = {photo.name: photo for photo in bench.dataset.photos}
    free: SimpleQueue[Lane] = SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def attempt(cell: Cell) -> Cell:
        lane = free.get()
        try:
            return measure(bench, lane, cell, photos[cell.image], temporary)
        finally:
            free.put(lane)

    with ThreadPoolExecutor(len(lanes)) as pool:
        futures = [pool.submit(attempt, cell) for cell in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:  # the pool waits for its threads, and these for the workers
            pool.shutdown(wait=False, cancel_futures=True)
            for lane in lanes:
                lane.kill()
            raise


def measure(bench: Bench, lane: Lane, cell: Cell, photo: Photo, temporary: Path) -> Cell:
    """Fill in one cell."""
    codec = lane.candidate
    place = temporary
    if bench.save_samples and bench.folder is not None:
        place = bench.folder / "samples" / slug(f"{codec.name}-q{cell.quality:g}")
        place.mkdir(parents=True, exist_ok=True)
    stem = slug(photo.name if place != temporary else f"{cell.quality!r}-{photo.name}")
    suffix = PILLOW[codec.source].suffix if codec.kind == "pillow" else SUFFIXES[codec.kind]
    file, picture = place / f"{stem}{suffix}", place / f"{stem}.png"
    try:
        if codec.kind == "ceiling":
            answer = lane.decoder.ask(task="ceiling", image=str(photo.path), picture=str(picture))
            cell.error = answer.get("error")
        else:
            _code(bench, lane, cell, photo, file, picture)
        if cell.error is None:
            _judge(bench, cell, photo, picture)
            if bench.pictures is not None:
                bench.pictures.keep(cell, file if codec.kind == "pillow" else None, picture)
    except OSError as error:  # such as a full disk: this cell's failure
        cell.error = f"{type(error).__name__}: {error}"
    finally:
        if place == temporary:
            file.unlink(missing_ok=True)
            picture.unlink(missing_ok=True)
    return cell


def _code(bench: Bench, lane: Lane, cell: Cell, photo: Photo, file: Path, picture: Path) -> None:
    shared = {"quality": cell.quality, "repetitions": bench.repetitions, "file": str(file)}
    coded = lane.encoder.ask(task="encode", image=str(photo.path), **shared)
    if "error" in coded:
        cell.error = f"encoder: {coded['error']}"
        return
    cell.n_bytes, cell.encode_seconds = file.stat().st_size, coded["seconds"]
    size = [photo.width, photo.height]
    decoded = lane.decoder.ask(task="decode", picture=str(picture), size=size, **shared)
    if "error" in decoded:
        cell.bugs.append("decode")
        cell.error = f"decoder: {decoded['error']}"
        return
    cell.decode_seconds = decoded["seconds"]
    if coded["digest"] != decoded["digest"]:
        cell.bugs.append("symbols")


def _judge(bench: Bench, cell: Cell, photo: Photo, picture: Path) -> None:
    with Image.open(picture) as decoded:
        if decoded.size != (photo.width, photo.height):
            cell.bugs.append("size")
            return
    for metric in bench.metrics:
        try:
            cell.metrics[metric.name] = metric.measure(photo.path, picture)
        except Exception as error:  # an outside program's, or too little memory
            cell.metrics[metric.name] = None
            cell.unmeasured[metric.name] = f"{type(error).__name__}: {error}"


def slug(name: str) -> str:
    """A short name without separators, for a file; a digest keeps different names different."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "_" for c in name)
    if plain == name and len(name) <= LONGEST:
        return plain
    return f"{plain[-LONGEST:]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse an output folder that has, or lacks, a benchmark.

    Raises:
        InputError: one in the way, or none to resume.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    if (folder / RUN).exists() != resume:
        problem = "holds a benchmark already; --resume continues it"
        raise InputError(f"{folder}: {'no benchmark to resume here' if resume else problem}")


def _begin(
    bench: Bench, resume: bool
) -> tuple[dict[tuple[str, float, str], Cell], dict[str, dict[str, float]]]:
    """Check the output folder; the cells and statistics of the run that is resumed."""
    folder = bench.folder
    if folder is None:
        return {}, {}
    if not resume:
        _remember(bench, {})
        return {}, {}
    try:
        before = json.loads((folder / RUN).read_text("utf-8"))
        statistics: dict[str, dict[str, float]] = before["statistics"]
        images, codecs = before["images"], before["codecs"]
        metrics, conditions = before["metrics"], before["conditions"]
        if not all(isinstance(part, dict) for part in (images, codecs, metrics, conditions)):
            raise ValueError("it says nothing of pictures, codecs, metrics or conditions")
        _check_statistics(statistics)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / RUN}: damaged ({first_line(error)})") from error
    now = _description(bench)
    if images != now["images"]:
        raise InputError(f"{folder}: the benchmark was of other pictures")
    if conditions != now["conditions"]:
        difference = _first_difference(conditions, now["conditions"])
        raise InputError(f"{folder}: measured in another way: {difference}")
    kinds = (("codec", codecs, now["codecs"]), ("metric", metrics, now["metrics"]))
    for kind, then, new in kinds:
        for name, identity in new.items():
            if then.get(name, identity) != identity:
                raise InputError(f"{folder}: {name} was another {kind}, or had other settings")
    every = record.read(folder)
    record.rewrite(folder, every)
    names = {m.name for m in bench.metrics}
    wanted = {cell.key for cell in bench.cells()}
    finished = {
        cell.key: cell
        for cell in every
        if cell.key in wanted
        and not cell.trouble
        and names <= cell.metrics.keys()
        and (bench.pictures is None or bench.pictures.has(cell))
    }
    return finished, statistics


def _check_statistics(statistics: Any) -> None:
    """Refuse load times and peaks of an earlier run that are no numbers by name (ValueError)."""
    parts = statistics.values() if isinstance(statistics, dict) else [None]
    if not all(
        isinstance(part, dict)
        and all(isinstance(v, (float, int)) and 0 <= v < math.inf for v in part.values())
        for part in parts
    ):
        raise ValueError("statistics that are no numbers")


def _first_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    key = next(k for k in {**before, **now} if before.get(k) != now.get(k))
    return f"{key} was {before.get(key)}, is {now.get(key)}"


def _description(bench: Bench) -> dict[str, Any]:
    """What makes results comparable."""
    return {
        "images": {p.name: p.digest for p in bench.dataset.photos},
        "codecs": {c.name: c.identity() for c in bench.candidates},
        "metrics": {m.name: m.identity for m in bench.metrics},
        "conditions": {"repetitions": bench.repetitions, "jobs": bench.n_jobs, **environment()},
    }


def _remember(bench: Bench, statistics: dict[str, dict[str, float]]) -> None:
    if bench.folder is not None:
        content = _description(bench) | {"statistics": statistics}
        text = json.dumps(content, indent=2) + "\n"
        write_whole(bench.folder / RUN, text.encode(), force=True)
