"""``python -m bkcodec.train`` is ``bkcodec train``, for ``accelerate launch -m bkcodec.train``."""

import sys

from bkcodec.cli import run

sys.argv.insert(1, "train")
run()
