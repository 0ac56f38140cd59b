"""What figures are measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bkcodec import __version__

PACKAGES = ("torch", "numpy", "pillow", "constriction", "pillow-jxl-plugin")


def environment() -> dict[str, Any]:
    """Versions and machine, the same for every call on one installation."""
    packages = {"bkcodec": __version__}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(), "system": platform.system(),
        "machine": platform.machine(), "cores": os.cpu_count(), "packages": packages,
    }  # fmt: skip
