"""What figures are measured on."""

from __future__ import annotations

import platform
from typing import Any

from bkcodec.machine import n_cores, versions

PACKAGES = ("torch", "numpy", "pillow", "constriction", "pillow-jxl-plugin")


def environment() -> dict[str, Any]:
    """Versions and machine, the same for every call on one installation."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": n_cores(),
        "packages": versions(PACKAGES),
    }
