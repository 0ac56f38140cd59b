"""``python -m bkcodec``."""

from bkcodec.cli import run

run()
