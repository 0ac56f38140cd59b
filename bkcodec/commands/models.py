"""``bkcodec models``: the bundles at hand, those to install, and backbones that the user keeps."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bkcodec import backbones, installed
from bkcodec.bundle import installed_bundles, shipped_bundles
from bkcodec.errors import InputError, UsageError
from bkcodec.files import printable

BK_SDM_LICENCE = "CreativeML OpenRAIL-M"
BK_SDM_NOTE = (
    f"BK-SDM's own weights are not shipped: their licence is {BK_SDM_LICENCE}. "
    "docs/bk-sdm.md says where to get them and how to keep a copy."
)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the bundles at hand and the backbones that were recorded."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json lists; it does not apply to add or remove")
        return
    for b in (*shipped_bundles(), *installed_bundles()):
        n_bytes = b.path.stat().st_size if b.path.is_file() else None
        row = {
            "name": b.name,
            "fingerprint": b.fingerprint,
            "licence": b.licence,
            "origin": b.origin,
            "path": str(b.path),
            "bytes": n_bytes,
        }
        size = "missing!" if n_bytes is None else f"{n_bytes / 1e6:.1f} MB"
        line = f"{b.name:<10} {b.fingerprint}   {size:>8}   {printable(b.licence)}   {b.origin}"
        click.echo(json.dumps(row) if as_json else line)
    for e in backbones.registered():
        entry = {"name": e.name, "backbone": True, "path": str(e.path), "files": e.files}
        line = f"{printable(e.name):<10} backbone   {len(e.files):>3} files   {printable(e.path)}"
        click.echo(json.dumps(entry) if as_json else line)
    if not as_json:
        click.echo(BK_SDM_NOTE, err=True)


@models.command()
@click.argument("source", metavar="BUNDLE|DIR", type=click.Path(path_type=Path))
@click.option(
    "--name",
    help="The name that --model knows the bundle by, by default its own, or --bk-sdm and --vae the "
    "directory.",
)
def add(source: Path, name: str | None) -> None:
    """Install a bundle, or record a directory of pretrained networks.

    A bundle is copied; files that were made with it are then decoded without any option. Of a
    directory the SHA-256 of each file is recorded, and the files stay where they are. What was
    changed since is refused when it is used.
    """
    if not source.is_dir():
        if not source.exists():
            raise InputError(f"{printable(source)}: no such file or directory")
        bundle = installed.install(source, name)
        click.echo(f"{bundle.sha256}  {bundle.path}")
        return
    if name is None:
        raise UsageError("--name is needed for a directory")
    if name in {b.name for b in shipped_bundles()}:
        raise InputError(f"the name {name} is that of a bundle that comes with bkcodec")
    if name in {b.name for b in installed_bundles()}:
        raise InputError(f"the name {name} is that of a bundle; models remove frees it")
    for file, digest in backbones.add(source, name).files.items():
        click.echo(f"{digest}  {file}")


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Take out an installed bundle, or forget a recorded backbone, whose files stay."""
    if name in {b.name for b in shipped_bundles()}:
        raise UsageError(f"{name} comes with bkcodec and stays")
    if not installed.uninstall(name):
        backbones.remove(name)
