"""The names of the options of ``bkcodec train``: those of a TOML file, and those of old scripts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bkcodec.errors import BkcError
from bkcodec.files import read_whole

_MAX_CONFIG = 2**20  # bytes of a TOML file

# Options of the training scripts that came before bkcodec, and what they are called here.
FORMER_NAMES = {
    "--data_path": "--data",
    "--val_data_path": "--val",
    "--model_path": "--bk-sdm",
    "--save_dir": "--output-dir",
    "--learning_rate": "--lr",
    "--num_epochs": "--epochs",
    "--use_pretrained_vae": "--pretrained-vae",
    "--use_pretrained_unet": "--pretrained-unet",
}


class TrainCommand(click.Command):
    """A command that says what an option of former scripts is called now."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            current = FORMER_NAMES.get(name, name.replace("_", "-"))
            options = {option for parameter in self.params for option in parameter.opts}
            if current == name or current not in options:
                raise
            text = f"No such option: {name}; in bkcodec that is {current}"
            raise click.UsageError(text, ctx) from error


def read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take option values from a TOML file; those on the command line win."""
    if path is None:
        return
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(read_whole(path, _MAX_CONFIG).decode("utf-8"))
    except (BkcError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}") from error
    names = {p.name: p for p in context.command.params}
    by_flag = {
        flag.lstrip("-").replace("-", "_"): name for name, p in names.items() for flag in p.opts
    }
    unknown = [key for key in content if key.replace("-", "_") not in by_flag]
    if unknown:
        raise click.BadParameter(f"{path}: unknown option {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = by_flag[key.replace("-", "_")]
        is_multiple = bool(getattr(names[name], "multiple", False))
        if isinstance(value, bool):
            values[name] = value
        elif isinstance(value, list) and not is_multiple:  # a pair
            values[name] = ",".join(map(str, value))
        elif isinstance(value, dict):
            raise click.BadParameter(f"{path}: {key} is a table")
        elif is_multiple:
            values[name] = value if isinstance(value, list) else [value]
        else:
            values[name] = str(value)
    context.default_map = values
