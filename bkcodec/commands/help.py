"""``bkcodec help``, and help texts whose options stand in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Group:
    """Options that belong together.

    Attributes:
        title: of the group.
        example: arguments of the command, as one would type them.
        names: of its options' parameters.
    """

    title: str
    example: str
    names: tuple[str, ...]


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups, each with an example."""

    groups: Sequence[Group] = ()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        grouped = {name for group in self.groups for name in group.names}
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        rest = [p.name for p in options if p.name and p.name not in grouped]
        for group in (*self.groups, Group("Other", "", tuple(rest))):
            by_name = {p.name: p for p in options}
            records = [by_name[n].get_help_record(ctx) for n in group.names if n in by_name]
            rows = [record for record in records if record is not None]
            if not rows:
                continue
            with formatter.section(group.title):
                if group.example:
                    formatter.write_text(f"{ctx.command_path} {group.example}")
                    formatter.write_paragraph()
                formatter.write_dl(rows)


_NAMES = ("output", "recursive", "jobs", "keep_extension", "skip_existing", "force", "keep_mtime")
MANY = Group("Many files", "photos/ -r -o small/ -j 0", _NAMES)
MACHINE = Group("Machine and limits", "photo.png --tile off", ("device", "tile", "max_pixels"))
BACKBONE = Group(
    "Pretrained networks", "photo.png -m bk-sdm --bk-sdm DIR", ("model", "bk_sdm", "vae", "unet")
)
_HELP = ("help", "_click_default_help")  # before click 8.2, and since
OUTPUT = Group("What is printed", "photos/ --json", ("json", "as_json", "quiet", "verbose", *_HELP))


@click.command(name="help")
@click.argument("command", nargs=-1)
@click.pass_context
def help(context: click.Context, command: tuple[str, ...]) -> None:  # noqa: A001 (its name)
    """Show the help of bkcodec, or of one of its commands."""
    shown = context.parent
    assert shown is not None
    for name in command:
        group = shown.command
        chosen = group.get_command(shown, name) if isinstance(group, click.Group) else None
        if chosen is None:
            words = " ".join(command)
            raise click.UsageError(f"no command {words!r}; bkcodec help lists them")
        shown = click.Context(chosen, info_name=name, parent=shown)
    click.echo(shown.get_help())
