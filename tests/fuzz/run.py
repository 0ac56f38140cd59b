"""Fuzz a target with atheris: python -m tests.fuzz.run TARGET [libFuzzer options] [CORPUS]..."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["bkcodec"]):
    import bkcodec.codec  # noqa: F401 (so that lazy imports are instrumented too)
    from tests.fuzz import targets


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: targets.run(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
