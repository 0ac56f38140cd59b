"""The command line: the group of commands, signals, exit codes. Only this module exits."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib import import_module

import click

from bkcodec import __version__
from bkcodec.errors import BkcError
from bkcodec.files import printable

INTERRUPTED, TERMINATED = 130, 143
HOMES = {"plot": "bench"}  # commands in the file of another


class Commands(click.Group):
    """The commands; only the one that is asked for is imported."""

    names = ("bench", "decode", "encode", "info", "models", "plot", "selftest", "train", "view")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return list(self.names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in self.names:
            return None
        home = import_module(f"bkcodec.commands.{HOMES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(home, cmd_name)
        return command


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="bkcodec")
def main() -> None:
    """A learned image codec: photos to .bkc files of a few kilobytes, and back."""


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)  # an exception, so that temporary files go


def run() -> None:
    """Entry point of the ``bkcodec`` command."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" See {context.command_path} --help." if context else ""
        message = printable(error.format_message()).rstrip(".")
        click.echo(f"bkcodec: error: {message}.{hint}", err=True)
        sys.exit(error.exit_code)
    except BkcError as error:
        click.echo(f"bkcodec: error: {printable(error)}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("bkcodec: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # a bug, or a system that says no where nobody asked it
        if "-v" in sys.argv or "--verbose" in sys.argv:
            traceback.print_exc()
        text = printable(f"unexpected {type(error).__name__}: {error}")
        click.echo(f"bkcodec: error: {text}", err=True)
        sys.exit(1)
