"""Distances between a photo and what a codec made of it; all on 8-bit RGB.

PSNR over all three channels, PSNR of luma (ITU-R 601-2, as Pillow's "L"), MS-SSIM of RGB (Wang et
al. 2003; sides above 160 pixels), LPIPS with the user's weights, and SSIMULACRA2 and Butteraugli
(3-norm) through libjxl's programs where they are on PATH. Where there is no such program, the
package ssimulacra2 gives SSIMULACRA2, which takes seconds for each megapixel, so only if it is
asked for.

Curves and BD-rates have MS-SSIM in decibels, -10 log10(1 - x): of its linear values the lowest
rates make up most of the range.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bkcodec import metrics as own
from bkcodec.errors import UnsupportedError, UsageError, install
from bkcodec.machine import versions

MS_SSIM_SIDE = 161  # five scales of an 11-pixel window need so much
EXACT_PSNR = 100.0  # dB, shown for identical pictures
IN_DECIBELS = {"ms-ssim"}  # on axes and in BD-rates
DECIBELS = "-10 log10(1 - x), dB"  # what is said of these

Measure = Callable[[Path, Path], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric by name.

    Attributes:
        name: key in results.
        label: for people.
        higher_is_better: which way.
        identity: what must be equal for values to be comparable, beyond the name.
        measure: paths of two PNG files -> the value, None where it is not defined.
        digits: to show.
    """

    name: str
    label: str
    higher_is_better: bool
    measure: Measure
    digits: int
    identity: str = ""

    @property
    def scale(self) -> str:
        """Unit on axes and in ranges of BD-rates, where that is not the label's."""
        return DECIBELS if self.name in IN_DECIBELS else ""


def scaled(name: str, value: float) -> float:
    """A metric's value as axes and BD-rates have it."""
    return own.decibels(value) if name in IN_DECIBELS else value


def find_metrics(requested: Sequence[str] | None, lpips: Sequence[Path]) -> list[Metric]:
    """The metrics to report: those named, or all that can be had.

    Raises:
        UsageError: an unknown name, or LPIPS without weights.
        UnsupportedError: a program that is not on PATH.
        InputError: a file without LPIPS weights.
    """
    if requested and lpips and not any(name.startswith("lpips") for name in requested):
        raise UsageError("--lpips does not apply: --metrics has no lpips")
    available = [
        Metric("psnr", "PSNR (RGB), dB", True, psnr, 2),
        Metric("psnr-y", "PSNR (luma), dB", True, psnr_luma, 2),
        Metric("ms-ssim", "MS-SSIM (RGB)", True, ms_ssim, 4),
        *(_lpips(path) for path in lpips),
    ]
    programs = {
        "ssimulacra2": ("ssimulacra2", True, 2),
        "butteraugli": ("butteraugli_main", False, 3),
    }
    for name, (program, higher, digits) in programs.items():
        if shutil.which(program):
            available.append(_external(name, program, higher, digits))
        elif requested and name in requested:
            available.append(_by_package(name, program))
    names = [metric.name for metric in available]
    if len(set(names)) < len(names):
        raise UsageError("two files of LPIPS weights have the same backbone")
    if requested is None:
        return available
    by_name = {metric.name: metric for metric in available}
    for name in requested:
        if name.startswith("lpips") and name not in by_name:
            raise UsageError(f"metric {name} needs its weights: --lpips FILE")
        if name not in by_name:
            raise UsageError(f"unknown metric {name!r}: {', '.join(by_name)}, lpips, butteraugli")
    return [by_name[name] for name in dict.fromkeys(requested)]


def psnr(original: Path, decoded: Path) -> float:
    """Peak signal-to-noise ratio over R, G and B together, in dB."""
    return _psnr(pixels(original, "RGB"), pixels(decoded, "RGB"))


def psnr_luma(original: Path, decoded: Path) -> float:
    """Peak signal-to-noise ratio of luma, in dB."""
    return _psnr(pixels(original, "L"), pixels(decoded, "L"))


def ms_ssim(original: Path, decoded: Path) -> float | None:
    """Multi-scale structural similarity of RGB."""
    import torch
    from pytorch_msssim import ms_ssim as similarity

    a, b = (torch.from_numpy(pixels(p, "RGB")).permute(2, 0, 1)[None] for p in (original, decoded))
    if min(a.shape[2:]) < MS_SSIM_SIDE:
        return None
    with torch.inference_mode():
        return float(similarity(a.float(), b.float(), data_range=255))


def pixels(path: Path, mode: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A picture file as an array."""
    with Image.open(path) as image:
        return np.array(image.convert(mode))


def _psnr(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else EXACT_PSNR


def _lpips(path: Path) -> Metric:
    import torch

    from bkcodec.bench.coders import image_to_tensor
    from bkcodec.models.lpips import MIN_SIDE, Lpips

    distance = Lpips(path)

    def measure(original: Path, decoded: Path) -> float | None:
        a, b = (image_to_tensor(Image.open(p)) for p in (original, decoded))
        if min(a.shape[2:]) < MIN_SIDE:
            return None
        with torch.inference_mode():
            return float(distance(a, b))

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Metric(distance.label, distance.label.upper(), False, measure, 4, digest)


def _external(name: str, program: str, higher: bool, digits: int) -> Metric:
    def measure(original: Path, decoded: Path) -> float | None:
        done = subprocess.run(
            [program, str(original), str(decoded)], capture_output=True, text=True, check=False
        )
        value = parse_external(name, done.stdout)
        if done.returncode or value is None:
            raise RuntimeError(f"{program} failed: {(done.stderr or done.stdout).strip()[:200]}")
        return value

    label = "SSIMULACRA2" if name == "ssimulacra2" else "Butteraugli (3-norm)"
    return Metric(name, label, higher, measure, digits)


def _by_package(name: str, program: str) -> Metric:
    """A metric by a Python package, for want of a program."""
    if name != "ssimulacra2":
        raise UnsupportedError(f"metric {name} needs libjxl's program {program} on PATH")
    package = versions(["ssimulacra2"])
    if name not in package:
        raise UnsupportedError(
            f"metric {name} needs libjxl's program {program} on PATH, or the package ssimulacra2: "
            f"{install('metrics')}"
        )

    def measure(original: Path, decoded: Path) -> float | None:
        return own.ssimulacra2(pixels(original, "RGB"), pixels(decoded, "RGB"))

    return Metric(name, "SSIMULACRA2", True, measure, 2, f"package {package[name]}")


def parse_external(name: str, output: str) -> float | None:
    """The value in what libjxl's program prints."""
    pattern = r"3-norm: *(-?[\d.]+)" if name == "butteraugli" else r"^(-?[\d.]+)\s*$"
    match = re.search(pattern, output, re.MULTILINE)
    return float(match[1]) if match else None
