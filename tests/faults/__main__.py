"""Run one fault, or all of them, as often as said."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py") if p.stem != "common")


def main() -> None:
    names, counts = sys.argv[1:2] or NAMES, sys.argv[2:3]
    for name in names:
        module = importlib.import_module(f"tests.faults.{name}")
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcome = module.fault(Path(folder), *map(int, counts))
        print(f"{name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
