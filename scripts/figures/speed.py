"""Times the default bundle: python scripts/figures/speed.py [PHOTO].

Model loaded and warm, medians of 9 (steps and targets of 5); whole processes, medians of 5; the
peak memory of each.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from processes import measured

import bkcodec
from bkcodec.machine import n_threads, versions

SAMPLE = Path(__file__).resolve().parents[2] / "tests" / "samples" / "lake.png"


def median(work: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE
    number = versions(["onnxruntime"])["onnxruntime"]
    with Image.open(path) as photo:
        print(f"{photo.width} x {photo.height}, {n_threads()} threads, ONNX Runtime {number}")
    with tempfile.TemporaryDirectory() as folder:
        # Before anything large is loaded here: a child's peak begins with its parent's size.
        processes(path, Path(folder, "photo.bkc"))
    image, codec = Image.open(path).convert("RGB"), bkcodec.Codec(device="cpu")
    data = codec.encode(image)
    codec.decode(data)
    print(f"encode, model loaded       {median(lambda: codec.encode(image), 9):.3f} s")
    print(f"decode, model loaded       {median(lambda: codec.decode(data), 9):.3f} s")
    options = bkcodec.DecodeOptions(steps=4)
    print(f"decode, 4 steps            {median(lambda: codec.decode(data, options), 5):.3f} s")
    target = bkcodec.EncodeOptions(target_bpp=0.1)
    print(f"encode --target-bpp 0.1    {median(lambda: codec.encode(image, target), 5):.3f} s")


def processes(photo: Path, file: Path) -> None:
    for name, arguments in {
        "encode": ["encode", photo, "-o", file, "-f"],
        "decode to PPM": ["decode", file, "-o", file.with_suffix(".ppm"), "-f"],
        "decode to PNG": ["decode", file, "-o", file.with_suffix(".png"), "-f"],
        "info": ["info", file],
        "--help": ["--help"],
    }.items():
        runs = [measured("-m", "bkcodec", *arguments) for _ in range(5)]
        seconds, peak = statistics.median(r.clock for r in runs), max(r.peak for r in runs)
        print(f"process: {name:<17} {seconds:.3f} s, {peak:.0f} MB")


if __name__ == "__main__":
    main()
