"""Try all attacks, or those that are named, each in a folder of its own."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py") if p.stem != "common")


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        module = importlib.import_module(f"tests.attacks.{name}")
        with tempfile.TemporaryDirectory() as folder:
            outcome = module.attack(Path(folder))
        print(f"{name:<22} {module.__doc__.splitlines()[0]}\n{'':<22} -> {outcome}")


if __name__ == "__main__":
    main()
