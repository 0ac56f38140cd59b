"""One side of one codec, in a process of its own.

``python -m bkcodec.bench.serve`` reads JSON lines and answers each with one. The first line is the
``Candidate``; the answer says how long loading took ("seconds"). Then come tasks:

    {"task": "encode", "image": PNG, "quality": q, "file": OUT, "repetitions": n}
    {"task": "decode", "file": FILE, "quality": q, "picture": OUT PNG, "repetitions": n,
     "size": [width, height]}
    {"task": "ceiling", "image": PNG, "picture": OUT PNG}

Answers hold "seconds" (the median; not of a ceiling), "digest" of the symbols, "peak_rss" and, on a
GPU, "peak_cuda" in bytes; or "error". An encoder and a decoder share nothing but files.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from bkcodec.bench.codecs import Candidate
from bkcodec.bench.coders import Ceiling, Coder, open_coder

SLOW = 0.6  # seconds: after so many in all, a task is not repeated any more


def serve() -> None:
    """Answer the lines of standard input until it ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    candidate = Candidate(**json.loads(sys.stdin.readline()))
    started = time.perf_counter()
    try:
        if candidate.threads and candidate.kind != "pillow":
            import torch

            torch.set_num_threads(candidate.threads)
        coder = open_coder(candidate)
    except Exception as error:
        channel.write(json.dumps({"error": describe(error)}) + "\n")
        return
    answer: dict[str, Any] = {"seconds": time.perf_counter() - started}
    channel.write(json.dumps(answer | _memory()) + "\n")
    warm: set[tuple[Any, ...]] = set()
    for line in sys.stdin:
        try:
            answer = perform(coder, json.loads(line), warm)
        except Exception as error:  # reported; the benchmark goes on
            answer = {"error": describe(error)}
        channel.write(json.dumps(answer | _memory()) + "\n")


def perform(
    coder: Coder | Ceiling, task: dict[str, Any], warm: set[tuple[Any, ...]]
) -> dict[str, Any]:
    """Do one task; returns its answer. ``warm`` remembers what has run before."""
    if isinstance(coder, Ceiling):
        coder.pass_through(_open(task["image"])).save(task["picture"], compress_level=1)
        return {}
    quality, repetitions = task["quality"], task["repetitions"]
    if task["task"] == "encode":
        image = _open(task["image"])
        known = (quality, image.size)
        (data, digest), seconds = timed(
            lambda: coder.encode(image, quality), repetitions, known in warm
        )
        Path(task["file"]).write_bytes(data)
    else:
        data = Path(task["file"]).read_bytes()
        known = (quality, tuple(task["size"]))
        picture, seconds = timed(lambda: coder.decode(data, quality), repetitions, known in warm)
        picture.save(task["picture"], "PNG", compress_level=1)
        digest = coder.digest(data)
    warm.add(known)
    return {"seconds": seconds, "digest": digest}


def timed(work: Callable[[], Any], repetitions: int, warm: bool) -> tuple[Any, float]:
    """The result of ``work`` and the median of its times.

    The first run at a new quality or size does not count, unless it is slow.
    """
    times: list[float] = []
    result = None
    while len(times) < repetitions and sum(times) < SLOW:
        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        if warm or seconds > SLOW:
            times.append(seconds)
        warm = True
    return result, statistics.median(times)


def describe(error: Exception) -> str:
    """One line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _open(path: str) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def _memory() -> dict[str, int]:
    found = {"peak_rss": peak_rss()}
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available() and torch.cuda.memory_allocated():
            found["peak_cuda"] = torch.cuda.max_memory_allocated()
    return found


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes; 0 where it cannot be told."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage includes the parent's memory before exec
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    serve()
