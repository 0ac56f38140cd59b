"""Photos per second of docs/datasets.md: python scripts/figures/engines.py PHOTOS [ray].

Each photo is encoded at the default quality, and as a JPEG of quality 90. Printed are bytes, then
how many photos one core does in a second of its own time (which other work on the machine hardly
changes), then what a DataLoader of one and two workers makes of them, and, with "ray", what
``ray_encode`` of two workers does. A worker's start is not counted.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import bkcodec
from bkcodec.integrations.torch import BkcFolder, Reader
from bkcodec.machine import processor

JPEG_QUALITY = 90
ROUNDS = 3  # through all photos


class Jpegs(Dataset[Any]):
    """The same as ``BkcFolder`` of JPEG files."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return jpeg(self.paths[index].read_bytes())


def jpeg(data: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        return pixels.reshape(image.height, image.width, 3).permute(2, 0, 1).contiguous()


def per_core(work: Callable[[Any], object], items: list[Any]) -> float:
    """Items per second of this process's own time."""
    work(items[0])
    started = time.process_time()
    for item in items * ROUNDS:
        work(item)
    return len(items) * ROUNDS / (time.process_time() - started)


def loaded(dataset: Any, workers: int) -> tuple[float, float]:
    """Items per second by the clock, and per second that the workers worked."""
    loader = DataLoader(
        torch.utils.data.ConcatDataset([dataset] * (ROUNDS + 1)),
        batch_size=None,
        num_workers=workers,
        persistent_workers=True,
    )
    items = iter(loader)
    for _ in range(len(dataset)):  # the first round, in which networks are loaded
        next(items)
    processes = psutil.Process().children()
    before, started = worked(processes), time.perf_counter()
    n_items = sum(1 for _ in items)
    return n_items / (time.perf_counter() - started), n_items / (worked(processes) - before)


def worked(processes: list[psutil.Process]) -> float:
    """Seconds that some processes were on a core."""
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


def with_ray(photos: Path, folder: Path) -> None:
    import ray

    from bkcodec.integrations.ray import ray_encode

    root = str(Path(bkcodec.__file__).parent.parent)
    environment = {"env_vars": {"PYTHONPATH": root}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    for name in ("first", "second"):  # the first call starts the workers
        started = time.perf_counter()
        rows = ray_encode(str(photos), str(folder / name), photos_per_shard=6)
        n_photos, clock = sum(row["converted"] for row in rows), time.perf_counter() - started
        rate = n_photos / sum(row["seconds"] for row in rows)
        print(
            f"ray_encode, {name} call, two workers: {n_photos / clock:.2f}/s, {rate:.2f} per task"
        )
    ray.shutdown()


def main(photos: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = files = jpegs = 0
        for path in sorted(photos.glob("*.png")):
            with Image.open(path) as image:
                pixels += image.width * image.height
                image.convert("RGB").save(folder / f"{path.stem}.jpg", quality=JPEG_QUALITY)
            data = bkcodec.encode(path)
            (folder / f"{path.stem}.bkc").write_bytes(data)
            files += len(data)
            jpegs += (folder / f"{path.stem}.jpg").stat().st_size
        paths, dataset = sorted(photos.glob("*.png")), BkcFolder(folder)
        n = len(paths)
        print(f"{processor()}; {n} photos, {pixels / n / 1e6:.2f} megapixels on average")
        print(f"bytes of a photo: .bkc {files / n:,.0f}, JPEG {jpegs / n:,.0f}")
        encoded = [path.read_bytes() for path in dataset.paths]
        sources = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
        print(f"one core, per second: encode {per_core(bkcodec.encode, sources):.2f}")
        for what, work, items in (
            ("decode", Reader(), encoded),
            ("latents", Reader(latents=True), encoded),
            ("JPEG", jpeg, sources),
        ):
            print(f"one core, per second: {what} {per_core(work, items):.2f}")
        sets = {"pictures": dataset, "latents": BkcFolder(folder, latents=True)}
        for what, items in (sets | {"JPEG": Jpegs(folder)}).items():
            for workers in (1, 2):
                clock, core = loaded(items, workers)
                print(f"DataLoader, {workers} workers, {what}: {clock:.2f}/s, {core:.2f} per core")
        if "ray" in sys.argv[2:]:
            with_ray(photos, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
