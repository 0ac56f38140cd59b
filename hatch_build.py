"""What a wheel has beside the package: man pages, made from the help texts while it is built."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPages(BuildHookInterface):
    """Writes the man pages into a folder of its own; an editable installation has none."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling. ``version`` is "standard" or "editable"."""
        if version != "standard":
            return
        self._folder = tempfile.TemporaryDirectory()
        paths = [self.root, *filter(None, [os.environ.get("PYTHONPATH")])]
        subprocess.run(
            [sys.executable, str(Path(self.root, "scripts", "man_pages.py")), self._folder.name],
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        for page in sorted(Path(self._folder.name).iterdir()):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """See hatchling."""
        if self._folder is not None:
            self._folder.cleanup()
