"""The command line: the group of commands, signals, exit codes. Only this module exits."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import click

from bkcodec import __version__
from bkcodec.commands.bench import bench, plot
from bkcodec.commands.decode import decode
from bkcodec.commands.encode import encode
from bkcodec.commands.info import info
from bkcodec.commands.models import models
from bkcodec.commands.selftest import selftest
from bkcodec.commands.train import train
from bkcodec.errors import BkcError
from bkcodec.files import printable

INTERRUPTED, TERMINATED = 130, 143


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="bkcodec")
def main() -> None:
    """A learned image codec: photos to .bkc files of a few kilobytes, and back."""


for command in (encode, decode, info, bench, models, plot, selftest, train):
    main.add_command(command)


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
