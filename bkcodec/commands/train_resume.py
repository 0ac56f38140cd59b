"""The options of a run, kept in its record, so that ``--resume`` needs none of them again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from bkcodec.commands.train_request import EXPORT_ONLY, Request
from bkcodec.errors import InputError, UsageError
from bkcodec.installed import taken_names
from bkcodec.train.record import RECORD

LENGTHS = ("epochs", "max_steps", "max_minutes")  # a new one takes the place of all
NOT_KEPT = EXPORT_ONLY | {"output", "resume", "dry_run"}
PLACES = ("val", "bk_sdm", "vae", "latents")  # of files and folders


def kept(request: Request) -> dict[str, Any]:
    """The options of a run as JSON has them, files with their whole paths."""
    values = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in NOT_KEPT}
    values["data"] = [(str(folder.absolute()), weight) for folder, weight in request.data]
    for name in (*PLACES, "lpips", "init_from"):
        if values[name] is not None:
            values[name] = _wherever(str(values[name]), may_be_run=name == "init_from")
    return values


def _wherever(value: str, may_be_run: bool) -> str:
    """A file or folder by its whole path; the name of a bundle or backbone stays one.

    ``may_be_run``: whether a folder is a run even where a bundle is called the same.
    """
    path = Path(value)
    is_path = path.exists() and (path.name != value or value not in taken_names())
    return str(path.absolute()) if is_path or (may_be_run and path.is_dir()) else value


def resumed(context: click.Context, request: Request) -> Request:
    """The options of the run that goes on, with those that the command line has instead.

    What may not change is compared when the run goes on.

    Raises:
        InputError: no run to resume, or a damaged record.
        UsageError: a record from before options were kept, and none on the command line.
    """
    path = request.output / RECORD
    try:
        content = json.loads(path.read_text("utf-8"))
        before = dict(_restored(content.get("request", {})))
    except FileNotFoundError as error:
        raise InputError(f"{request.output}: no run to resume here") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    if not before and not request.data:
        raise UsageError(f"{path}: of an earlier version; repeat the options that the run had")
    given = {f.name for f in fields(request) if _is_given(context, f.name)}
    if given.intersection(LENGTHS):
        given.update(LENGTHS)
    return replace(request, **{k: v for k, v in before.items() if k not in given})


def _restored(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What ``kept`` made, as options again; what this version does not know is left out."""
    names = {f.name for f in fields(Request)} - NOT_KEPT
    for name, value in values.items():
        if name == "data":
            yield name, tuple((Path(folder), float(weight)) for folder, weight in value)
        elif name in PLACES and value is not None:
            yield name, Path(value)
        elif name in names:
            yield name, tuple(value) if isinstance(value, list) else value


def _is_given(context: click.Context, name: str) -> bool:
    """Whether the command line or a file of options says this."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")
