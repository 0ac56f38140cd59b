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
        rest = [p.name for p in self.get_params(ctx) if p.name and p.name not in grouped]
        for group in (*self.groups, Group("Other", "", tuple(rest))):
            by_name = {p.name: p for p in self.get_params(ctx)}
            records = [by_name[n].get_help_record(ctx) for n in group.names if n in by_name]
            rows = [record for record in records if record is not None]
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
OUTPUT = Group("What is printed", "photos/ --json", ("json", "as_json", "quiet", "verbose", "help"))


@click.command(name="help")
@click.argument("command", required=False)
@click.pass_context
def help(context: click.Context, command: str | None) -> None:  # noqa: A001 (the command's name)
    """Show the help of bkcodec, or of one of its commands."""
    parent = context.parent
    assert parent is not None and isinstance(parent.command, click.Group)
    if command is None:
        click.echo(parent.get_help())
        return
    chosen = parent.command.get_command(parent, command)
    if chosen is None:
        raise click.UsageError(f"no command {command!r}; bkcodec help lists them")
    with click.Context(chosen, info_name=command, parent=parent) as child:
        click.echo(chosen.get_help(child))
