"""What the shell completes: the names of files, and those of bundles.

click hands "file" to the shell, which then completes in its own way.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from bkcodec.bundle import installed_bundles, shipped_bundles
from bkcodec.errors import UnsupportedError


def files(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Files and directories; the ``shell_complete`` of an argument or option that takes paths."""
    return [CompletionItem(start, type="file")]


def bundles(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """The bundles at hand by name, and files; the ``shell_complete`` of --model."""
    try:
        names = [bundle.name for bundle in (*shipped_bundles(), *installed_bundles())]
    except UnsupportedError:  # an installation without weights: its commands say so
        names = []
    items = [CompletionItem(name) for name in names if name.startswith(start)]
    return files(context, parameter, start) + items  # click's bash script forgets those before
