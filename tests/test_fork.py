"""Processes that are forked or spawned from one that has coded already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_networks import integer_bundle

# Codes here and in two such processes; prints for each whether it made the same.
CODE = """
import multiprocessing, sys
import numpy as np
from PIL import Image
from bkcodec import Codec

def work(codec, photo, results):
    data = codec.encode(photo)
    results.put((data, np.asarray(codec.decode(data)).astype(int)))

def main(method, bundle, path):
    photo = Image.open(path).convert("RGB").crop((0, 0, 320, 240))
    codec, context = Codec(bundle, "cpu"), multiprocessing.get_context(method)
    data = codec.encode(photo)
    pixels, results = np.asarray(codec.decode(data)).astype(int), context.Queue()
    target, first = (work, codec) if method == "fork" else (fresh, bundle)
    for _ in range(2):
        context.Process(target=target, args=(first, photo, results), daemon=True).start()
    for _ in range(2):
        theirs, shown = results.get(timeout=60)
        print(theirs == data, np.abs(shown - pixels).max())

def fresh(bundle, photo, results):
    work(Codec(bundle, "cpu"), photo, results)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_they_do_not_wait_for_threads_that_are_not_there(
    method: str, kind: str, lake: Image.Image, tmp_path: Path
) -> None:
    bundle = integer_bundle(lake, tmp_path / "b.safetensors") if kind == "integers" else "lite"
    lake.save(tmp_path / "lake.png")
    script = tmp_path / "script.py"
    script.write_text(CODE, "utf-8")
    command = [sys.executable, str(script), method, str(bundle), str(tmp_path / "lake.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    largest = 1 if kind == "floats" else 0  # the sums of floats depend on the threads
    for line in done.stdout.splitlines():
        same, difference = line.split()
        assert same == "True" and int(difference) <= largest
    assert len(done.stdout.splitlines()) == 2
