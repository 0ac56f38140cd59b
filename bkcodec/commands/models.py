"""``bkcodec models``: the bundles at hand, and the backbones that the user keeps."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bkcodec import backbones
from bkcodec.bundle import shipped_bundles
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
    for b in shipped_bundles():
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
        line = f"{b.name:<10} {b.fingerprint}   {size:>8}   {b.licence}   {b.origin}"
        click.echo(json.dumps(row) if as_json else line)
    for e in backbones.registered():
        entry = {"name": e.name, "backbone": True, "path": str(e.path), "files": e.files}
        line = f"{printable(e.name):<10} backbone   {len(e.files):>3} files   {printable(e.path)}"
        click.echo(json.dumps(entry) if as_json else line)
    if not as_json:
        click.echo(BK_SDM_NOTE, err=True)


@models.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The name that --bk-sdm and --vae will know it by.")
def add(directory: Path, name: str) -> None:
    """Record a directory of pretrained networks with the SHA-256 of each of its files.

    A file that was changed since is refused when the name is used.
    """
    entry = backbones.add(directory, name)
    for file, digest in entry.files.items():
        click.echo(f"{digest}  {file}")


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a recorded backbone; its files stay where they are."""
    backbones.remove(name)
