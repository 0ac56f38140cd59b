"""The record of a run: what it was asked to do, and what of that may change when it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bkcodec.errors import InputError

RECORD = "run.json"  # in the run's folder
# Options that may change when a run goes on. So may its processes; it then draws other crops.
CHANGEABLE = {"epochs", "max_steps", "max_minutes", "save_minutes", "save_steps", "compiled"}
PLACES = {"latents", "lpips"}  # files, which may have moved


def checked(record_file: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What stays of the record that a run began with.

    Raises:
        InputError: it is damaged, or the run had other options.
    """
    try:
        before = json.loads(record_file.read_text("utf-8"))
        different = {k for k in ("data", "val", "unet") if before.get(k) != record.get(k)}
        for key in ("options", "model"):
            was, now = before[key], record[key]
            different |= {k for k in now if _value(was.get(k), k) != _value(now[k], k)}
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{record_file}: damaged ({error})") from error
    if different - CHANGEABLE:
        names = ", ".join(sorted(different - CHANGEABLE))
        raise InputError(f"{record_file.parent}: the run had another {names}")
    return {k: before[k] for k in ("command", "init_from") if k in before}


def _value(value: Any, name: str) -> Any:
    """What is compared of an option."""
    return Path(value).name if name in PLACES and value is not None else value
