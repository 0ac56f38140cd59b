"""matplotlib as it comes: neither the current folder nor the user's settings change a plot.

While it is imported, matplotlib reads a file ``matplotlibrc``, first of all that of the current
folder, which may name programs to run and modules to load. So it is imported from a folder where
this file is empty, and each plot is drawn with the built-in parameters.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

SALT = "bkcodec"  # of the names inside an SVG file, which are random without one


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Work in a folder without settings: matplotlib reads some when it is imported."""
    try:
        here = os.getcwd()
    except OSError:  # it was deleted: nothing can be read from it
        yield
        return
    with tempfile.TemporaryDirectory(prefix="bkcodec-") as folder:
        (Path(folder) / "matplotlibrc").touch()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)


@contextlib.contextmanager
def built_in_style() -> Iterator[None]:
    """Draw with matplotlib's own parameters; what its fonts lack is drawn as a box, silently."""
    with elsewhere():
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.backends.backend_svg  # noqa: F401 (imported here, for the same reason)

    parameters = {**matplotlib.rcParamsDefault, "svg.hashsalt": SALT}
    with matplotlib.rc_context(parameters), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
