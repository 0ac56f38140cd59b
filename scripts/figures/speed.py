"""Times the default bundle: python scripts/figures/speed.py [PHOTO].

Model loaded and warm, medians of 9 (steps and targets of 5); whole processes, medians of 5; the
peak memory of the largest of them.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image

import bkcodec

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
    image = Image.open(path).convert("RGB")
    size, threads = f"{image.width} x {image.height}", torch.get_num_threads()
    print(f"{size}, {threads} threads, torch {torch.__version__}")
    codec = bkcodec.Codec(device="cpu")
    data = codec.encode(image)
    codec.decode(data)
    print(f"encode, model loaded       {median(lambda: codec.encode(image), 9):.3f} s")
    print(f"decode, model loaded       {median(lambda: codec.decode(data), 9):.3f} s")
    options = bkcodec.DecodeOptions(steps=4)
    print(f"decode, 4 steps            {median(lambda: codec.decode(data, options), 5):.3f} s")
    target = bkcodec.EncodeOptions(target_bpp=0.1)
    print(f"encode --target-bpp 0.1    {median(lambda: codec.encode(image, target), 5):.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "photo.bkc")
        file.write_bytes(data)
        for name, arguments in {
            "encode": ["encode", str(path), "-o", f"{folder}/again.bkc", "-f"],
            "decode": ["decode", str(file), "-o", f"{folder}/photo.png", "-f"],
            "info": ["info", str(file)],
            "--help": ["--help"],
        }.items():
            command = [sys.executable, "-m", "bkcodec", *arguments]
            start_it = partial(subprocess.run, command, check=True, capture_output=True)
            seconds = median(start_it, 5)
            print(f"process: bkcodec {name:<9} {seconds:.3f} s")
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"peak memory of a process   {peak:.0f} MiB")


if __name__ == "__main__":
    main()
