"""Write the man pages: python scripts/man_pages.py FOLDER. They say what --help says."""

import sys
from inspect import cleandoc
from pathlib import Path

import click
from click_man.core import write_man_pages

from bkcodec import __version__
from bkcodec.cli import main


def load(group: click.Group) -> None:
    """Import the commands of a group, and give each its first paragraph as its short help."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        command.help = cleandoc(command.help)
        command.short_help = " ".join(command.help.split("\n\n")[0].split()).rstrip(".")
        group.commands[name] = command
        if isinstance(command, click.Group):
            load(command)


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    load(main)
    main.short_help = main.help.rstrip(".")
    write_man_pages("bkcodec", main, version=__version__, target_dir=str(folder))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
