"""``bkcodec selftest``: does this machine read and write what others did?"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bkcodec.bundle import shipped_bundles
from bkcodec.errors import BkcError, UnsupportedError
from bkcodec.inspection import info
from bkcodec.machine import devices, n_threads, processor, versions

if TYPE_CHECKING:
    from PIL import Image

LIBRARIES = ("numpy", "onnxruntime", "constriction", "safetensors", "pillow", "torch", "diffusers")
# Of what lite makes of ``pattern()``, by quality: the first 16 digits of the SHA-256.
ENCODED = {
    "da72377b": {20.0: "a97fadf7c5f931ef", 50.0: "4078b0ffd92866e4", 100.0: "731881548283480e"}
}
PIXELS = "pixels_sha256"  # of the decoded colours, row by row
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    good: bool
    note: str = ""


def vectors_folder() -> Path:
    """The golden files: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / "vectors"
    return inside if inside.is_dir() else _PACKAGE.parent / "formats" / "vectors"


def environment() -> dict[str, str]:
    """What a report about this machine should say."""
    packages = dict.fromkeys(LIBRARIES, "missing") | versions(LIBRARIES)
    values = {
        "bkcodec": packages.pop("bkcodec"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        **packages,
        "threads": str(n_threads()),
    }
    if "cuda" in devices():
        import torch

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
    """Symbols of all golden files; on each device, pixels of those of lite, and encoded bytes.

    Raises:
        UnsupportedError: no golden files, or no such device.
    """
    paths = sorted(vectors_folder().glob("*.bkc"))
    if not paths:
        raise UnsupportedError("no golden files in this installation. Reinstall bkcodec.")
    for path in paths:
        yield _symbols(path)
    for device in names:
        try:
            yield from _device(device, paths)
        except UnsupportedError:
            raise
        except BkcError as error:
            yield Check(f"device {device}", False, str(error))


def _symbols(path: Path) -> Check:
    what = f"symbols of {path.stem}"
    try:
        expected = _record(path)
        values = info(path.read_bytes(), verify=True)
    except (BkcError, OSError, ValueError) as error:
        return Check(what, False, str(error))
    differing = [k for k, v in expected.items() if k != PIXELS and values.get(k) != v]
    return Check(what, not differing, f"differing: {', '.join(differing)}" if differing else "")


def _device(device: str, paths: list[Path]) -> Iterator[Check]:
    from bkcodec.codec import Codec
    from bkcodec.options import EncodeOptions

    lite = shipped_bundles()[0]
    codec = Codec(lite.name, device)
    for path in paths:
        expected = _record(path).get(PIXELS)
        if expected is not None:
            image = codec.decode(path.read_bytes())
            colours = image.convert(image.mode.removesuffix("A"))
            good = hashlib.sha256(colours.tobytes()).hexdigest() == expected
            yield Check(f"pixels of {path.stem} on {device}", good)
    for quality, expected in ENCODED.get(lite.fingerprint, {}).items():
        data = codec.encode(pattern(), EncodeOptions(quality=quality))
        digest = hashlib.sha256(data).hexdigest()[:16]
        note = "" if digest == expected else f"gives {digest}, not {expected}"
        yield Check(f"encoding at quality {quality:g} on {device}", digest == expected, note)


def _record(path: Path) -> dict[str, Any]:
    """What is on record about a golden file."""
    return dict(json.loads(path.with_suffix(".json").read_text("utf-8")))


@click.command(short_help="Decode the golden files, compare them with the record.")
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
    good = all(check.good for check in results)
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
            click.echo(
                f"{'ok' if check.good else 'WRONG':<8} {check.what:<36} {check.note}".rstrip()
            )
        click.echo(f"\n{'passed' if good else 'FAILED'}: {_verdict(results)}")
    if not good:
        raise SystemExit(1)


def _verdict(results: list[Check]) -> str:
    wrong = sum(not check.good for check in results)
    if wrong:
        return f"{wrong} of {len(results)} checks; please report this output"
    return f"{len(results)} checks; this machine reads and writes the files on record"
