"""``bkcodec selftest``: does this machine read and write what others did?"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bkcodec.bundle import shipped_bundles
from bkcodec.errors import BkcError, UnsupportedError
from bkcodec.inspection import info
from bkcodec.machine import devices, processor, versions

if TYPE_CHECKING:
    from PIL import Image

LIBRARIES = ("torch", "numpy", "constriction", "diffusers", "safetensors", "pillow")
# SHA-256 (its first 16 digits) of what lite makes of ``pattern()``, by quality.
ENCODED = {
    "64024240": {20.0: "e3d55b9248fedd36", 50.0: "1c55e329f6c6b4e5", 100.0: "4046e53f35365afa"}
}
_WORDS = {True: "ok", False: "WRONG", None: "other"}
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``good`` is None where a difference harms nobody."""

    what: str
    good: bool | None
    note: str = ""


def vectors_folder() -> Path:
    """The golden files: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / "vectors"
    return inside if inside.is_dir() else _PACKAGE.parent / "formats" / "vectors"


def environment() -> dict[str, str]:
    """What a report about this machine should say."""
    import torch

    packages = dict.fromkeys(LIBRARIES, "missing") | versions(LIBRARIES)
    values = {
        "bkcodec": packages.pop("bkcodec"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        **packages,
        "threads": str(torch.get_num_threads()),
    }
    for index in range(torch.cuda.device_count()):
        values[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return values


def pattern() -> Image.Image:
    """A picture from integer arithmetic: the same everywhere."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:192, :256]
    planes = (3 * x + 2 * y, x * y // 7, 200 * ((x // 16 + y // 16) % 2) + (x ^ y) % 56)
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def checks(names: list[str]) -> Iterator[Check]:
    """Symbols of all golden files, pixels and encoded bytes on each device."""
    yield from _symbols()
    for device in names:
        try:
            yield from _device(device)
        except BkcError as error:
            yield Check(f"device {device}", False, str(error))


def _symbols() -> Iterator[Check]:
    paths = sorted(vectors_folder().glob("*.bkc"))
    if not paths:
        raise UnsupportedError("no golden files in this installation. Reinstall bkcodec.")
    for path in paths:
        try:
            expected = dict(json.loads(path.with_suffix(".json").read_text("utf-8")))
            values = info(path.read_bytes(), verify=True)
        except (BkcError, OSError, ValueError) as error:
            yield Check(f"symbols of {path.stem}", False, str(error))
            continue
        differing = [key for key, value in expected.items() if values.get(key) != value]
        note = f"differing: {', '.join(differing)}" if differing else ""
        yield Check(f"symbols of {path.stem}", not differing, note)


def _device(device: str) -> Iterator[Check]:
    import numpy as np

    from bkcodec.codec import Codec
    from bkcodec.options import EncodeOptions

    lite = shipped_bundles()[0]
    codec, reference = Codec(lite.name, device), Codec(lite.name, "cpu")
    for quality, expected in ENCODED.get(lite.fingerprint, {}).items():
        data = codec.encode(pattern(), EncodeOptions(quality=quality))
        digest = hashlib.sha256(data).hexdigest()[:16]
        # Another encoder's bytes are as good, as long as everyone decodes them.
        note = (
            "" if digest == expected else f"another file than on record ({digest}), which decodes"
        )
        yield Check(f"encoding on {device}, quality {quality:g}", digest == expected or None, note)
        far = np.abs(
            np.asarray(codec.decode(data), np.int16) - np.asarray(reference.decode(data), np.int16)
        ).max()
        yield Check(
            f"pixels on {device}, quality {quality:g}",
            bool(far <= 1),
            f"at most {far} of 255 from the CPU's",
        )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--device",
    "names",
    multiple=True,
    type=click.Choice(["cpu", "cuda", "mps"]),
    help="Device to test; may be given several times.  [default: all that are here]",
)
def selftest(as_json: bool, names: tuple[str, ...]) -> None:
    """Decode the golden files, compare them with the record, and print the verdict."""
    here = environment()
    results = list(checks(list(names) or devices()))
    good = all(check.good is not False for check in results)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "passed": good,
                    "environment": here,
                    "checks": [asdict(check) for check in results],
                }
            )
        )
    else:
        for key, value in here.items():
            click.echo(f"{key:<14} {value}")
        click.echo()
        for check in results:
            click.echo(f"{_WORDS[check.good]:<8} {check.what:<34} {check.note}".rstrip())
        click.echo(f"\n{'passed' if good else 'FAILED'}: {_verdict(results)}")
    if not good:
        raise SystemExit(1)


def _verdict(results: list[Check]) -> str:
    wrong, other = (sum(check.good is state for check in results) for state in (False, None))
    if wrong:
        return f"{wrong} of {len(results)} checks; please report this output"
    if other:
        return "this machine reads all files; what it encodes differs from the record, validly"
    return f"{len(results)} checks; this machine reads and writes the files on record"
