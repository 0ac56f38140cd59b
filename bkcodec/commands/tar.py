"""Tar shards in ``bkcodec encode`` and ``bkcodec decode``."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from bkcodec.commands.batch import Report, run_batch, write_output
from bkcodec.commands.help import Group
from bkcodec.commands.paths import ERRORS, Job, Naming, plan
from bkcodec.commands.shared import Shared
from bkcodec.errors import BkcError, UsageError
from bkcodec.files import STREAM, is_stream, output_stream, printable, write_whole
from bkcodec.machine import n_cores, out_of_memory, share_threads
from bkcodec.remote import Url
from bkcodec.shards.conversion import Conversion, Failure, Tally, convert
from bkcodec.shards.members import open_shard
from bkcodec.shards.names import Renaming, shard_names

EXTENSION = ".tar"
IN_FOLDERS = frozenset({".tar", ".tgz"})
SHARDS = Group("Tar shards", "'shard-{000..099}.tar' -o small/ -j 0", ("tar", "drop_failed"))
_ENDING = re.compile(r"\.(tar|tar\.gz|tgz)$", re.IGNORECASE)

Change = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Shards:
    """What is said about tar shards; see ``shard_options``.

    Attributes:
        tar: the inputs are shards, whatever their names.
        drop_failed: leave members that fail out.
    """

    tar: bool
    drop_failed: bool

    def are_meant(self, inputs: Sequence[str], shared: Shared, others: frozenset[str]) -> bool:
        """Whether the inputs are tar shards: they are called so, or are folders of nothing else.

        Args:
            inputs: of the command.
            shared: options.
            others: endings of the files that the command reads, lower case.

        Raises:
            UsageError: some are and some are not, or an option needs shards.
        """
        folders = [text for text in inputs if os.path.isdir(text)]
        files = [text for text in inputs if text not in folders]
        shards = [text for text in files if _ENDING.search(text)]
        if self.tar or (files and len(shards) == len(files)):
            return True
        if shards:
            other = next(text for text in files if text not in shards)
            raise UsageError(f"{printable(other)} is not called .tar; --tar takes it for a shard")
        if not files and all(_has_only_shards(text, shared.recursive, others) for text in folders):
            return True
        if self.drop_failed:
            raise UsageError("--drop-failed applies to members of tar shards only")
        return False


def shard_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of shards to a command; it gets them as one ``Shards``, named ``shards``."""

    @click.option(
        "--tar",
        is_flag=True,
        help="The inputs are tar shards, whatever they are called; standard input may be one.",
    )
    @click.option(
        "--drop-failed",
        is_flag=True,
        help="Leave members of tar shards that fail out, instead of keeping them as they are.",
    )
    @functools.wraps(command)
    def with_shards(tar: bool, drop_failed: bool, **given: Any) -> Any:
        return command(shards=Shards(tar, drop_failed), **given)

    return with_shards


def run_shards(
    inputs: Sequence[str],
    shards: Shards,
    shared: Shared,
    renamed: Renaming,
    load: Callable[[], Change],
    activity: str,
    writes: bool = True,
) -> None:
    """Convert shards, one after the other, each with as many threads as --jobs says.

    Args:
        inputs: names, patterns, folders, or "-".
        shards: options of shards.
        shared: options.
        renamed: see ``Conversion``.
        load: makes what converts a member's content; takes time.
        activity: a word for what is done.
        writes: whether there are outputs.

    Raises:
        UsageError: options that do not go together, or no output is named.
        SystemExit: see ``run_batch``.
    """
    inputs = shard_names(inputs)
    if shared.output is None and inputs != [STREAM]:
        raise UsageError("shards keep their names; -o DIRECTORY/ says where the new ones go")
    naming = _Naming(shared.output, EXTENSION, keep_extension=True)
    jobs = plan(inputs, naming, IN_FOLDERS, shared.recursive)
    shared.check(inputs, jobs)

    def work() -> Callable[[Job], Report]:
        n_workers = share_threads(shared.jobs or n_cores())
        change = _careful(load())
        conversion = Conversion(
            renamed, change, shared.limits.max_file_bytes, n_workers, shards.drop_failed
        )
        return _Work(conversion, shared, writes)

    run_batch(jobs, work, replace(shared, jobs=1), activity, writes)


@dataclass(frozen=True, slots=True)
class _Naming(Naming):
    """A shard keeps its name, but for gzip's ending."""

    def of(self, place: Path) -> Path:
        """The name of an input as that of its output."""
        return place.with_name(_ENDING.sub("", place.name) + EXTENSION)


class _Work:
    """Converts one shard after the other."""

    def __init__(self, conversion: Conversion, shared: Shared, writes: bool) -> None:
        self.conversion, self.shared, self.writes = conversion, shared, writes

    def __call__(self, job: Job) -> Report:
        started, tallies = time.perf_counter(), list[Tally]()
        target, errors = job.target, None  # and where failures are listed
        if (
            self.writes
            and target is not None
            and (isinstance(target, Url) or not is_stream(target))
        ):
            errors = target.with_suffix(ERRORS)

        def content(file: BinaryIO) -> None:
            with open_shard(job.source) as source:
                tallies.append(convert(source, file, self.conversion))
            if errors is not None:  # before the shard has its name: a finished one is skipped
                _record(tallies[0].failures, errors)

        if not self.writes:
            with open(os.devnull, "wb") as nowhere:
                content(nowhere)
        elif job.target is None:
            _stream(content)
        else:
            write_output(job, content, self.shared)
        (tally,) = tallies
        values = {
            "members": tally.members,
            "converted": tally.converted,
            "failed": len(tally.failures),
            "bytes_before": tally.bytes_before,
            "bytes_after": tally.bytes_after,
            "seconds": round(time.perf_counter() - started, 4),
        }
        return Report(job, values, problems=_problems(job, tally, errors))


def _record(failures: list[Failure], path: Path | Url) -> None:
    """List failures in a file, or see to it that there is none."""
    if failures:
        rows = [{"member": failure.member, "error": failure.reason} for failure in failures]
        write_whole(path, (json.dumps(rows, indent=1) + "\n").encode(), force=True)
    else:
        path.unlink(missing_ok=True)


def _problems(job: Job, tally: Tally, errors: Path | Url | None) -> list[str]:
    """One line for all failures where a file lists them, else one for each."""
    if errors is not None and tally.failures:
        count = f"{len(tally.failures):,} of {tally.members:,} members failed"
        return [f"{job.name}: {count}; {errors} lists them"]
    return [f"{job.name}: {failure.member}: {failure.reason}" for failure in tally.failures]


def _stream(content: Callable[[BinaryIO], None]) -> None:
    """Write to standard output as it comes; a shard that fails has no end there."""
    stream = output_stream()
    try:
        content(stream)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BkcError(f"standard output: {error.strerror or error}") from error


def _careful(change: Change) -> Change:
    """Have running out of memory become an error that says what needs less."""

    def careful(data: bytes) -> bytes:
        with out_of_memory("Fewer --jobs or a smaller --tile need less."):
            return change(data)

    return careful


def _has_only_shards(folder: str, recursive: bool, others: frozenset[str]) -> bool:
    """Whether a folder has tar files, and nothing else that the command reads."""
    kinds: set[str] = set()
    for _, _, names in os.walk(folder):
        kinds |= {Path(name).suffix.lower() for name in names}
        if kinds & others:
            return False
        if not recursive:
            break
    return bool(kinds & IN_FOLDERS)
