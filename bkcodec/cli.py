"""The command line: the group of commands, signals, exit codes. Only this module exits."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import click

from bkcodec import __version__
from bkcodec.errors import BkcError, LimitError, first_line, is_out_of_memory
from bkcodec.files import printable, remove_temporaries

INTERRUPTED = 130
ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU")
HOMES = {"plot": "bench"}  # commands in the file of another


class Commands(click.Group):
    """The commands; only the one that is asked for is imported."""

    names = (
        "bench",
        "decode",
        "encode",
        "help",
        "info",
        "models",
        "plot",
        "selftest",
        "thumbnail",
        "train",
        "view",
    )

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
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="bkcodec")
@click.pass_context
def main(context: click.Context) -> None:
    """A learned image codec: photos to .bkc files of a few kilobytes, and back.

    \b
    bkcodec encode photo.jpg            writes photo.bkc
    bkcodec decode photo.bkc            writes photo.png
    bkcodec help encode                 says what encode can do
    """  # noqa: D301 (click's mark for lines that stay as they are)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _stop_on_signals() -> None:
    """Have signals that end a process end this one without leaving temporary files.

    A first one is raised as an exception, so that worker processes and folders go too; a second one
    ends the process where it is. What the caller has the process ignore (nohup) stays ignored.
    """
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            _leave(128 + received[0])
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for name in ENDING:
        number = getattr(signal, name, None)  # Windows has some
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def _leave(code: int) -> NoReturn:
    """End the process now: threads at work would keep it for as long as their files take."""
    remove_temporaries()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def run() -> None:
    """Entry point of the ``bkcodec`` command."""
    _stop_on_signals()
    warnings.simplefilter("ignore")  # of libraries, about odd files; ours are errors
    try:
        main(prog_name="bkcodec", standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" See {context.command_path} --help." if context else ""
        message = printable(error.format_message()).rstrip(".")
        _fail(f"{message}.{hint}", error.exit_code)
    except BkcError as error:
        _fail(error, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("bkcodec: interrupted", err=True)
        _leave(INTERRUPTED)
    except SystemExit as error:
        if isinstance(error.code, int) and error.code > 128:  # a signal
            _leave(error.code)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # a bug, or a system that says no where nobody asked it
        if "-v" in sys.argv or "--verbose" in sys.argv:
            traceback.print_exc()
        if is_out_of_memory(error):
            _fail("out of memory", LimitError.exit_code)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(f"cannot be written: {error.strerror}", 1)
        _fail(f"unexpected {type(error).__name__}: {first_line(error)}", 1)


def _fail(message: object, code: int) -> NoReturn:
    click.echo(f"bkcodec: error: {printable(message)}", err=True)
    sys.exit(code)
