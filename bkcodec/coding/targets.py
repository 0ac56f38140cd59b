"""Targets that people mean: a metric, and the value that a decoded picture has to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bkcodec.errors import UsageError, extra

if TYPE_CHECKING:
    from bkcodec.metrics import Pixels

LEVELS = tuple(range(0, 201, 20))  # at which the curves below were measured


@dataclass(frozen=True, slots=True)
class Metric:
    """What a target can be made of; larger is better.

    Attributes:
        name: as in "ssimulacra2=70".
        label: for people.
        unit: after the value, for people.
        best: the largest value that may be asked for; the smallest is 0.
        min_side: pixels; it is not defined for pictures with a shorter side.
        digits: after the decimal point, for people.
        curve: its mean at LEVELS: where a search begins, on the way to what is true of a picture.
    """

    name: str
    label: str
    unit: str
    best: float
    min_side: int
    digits: int
    curve: tuple[float, ...]

    def measure(self, original: Pixels, decoded: Pixels) -> float:
        """The value for uint8 [H, W, 1 or 3].

        Raises:
            UsageError: a picture that is too small.
            UnsupportedError: the metric's package is not here.
            LimitError: not enough memory.
        """
        from bkcodec import metrics

        functions = {
            "psnr": metrics.psnr,
            "ms-ssim": metrics.ms_ssim,
            "ssimulacra2": metrics.ssimulacra2,
        }
        value = functions[self.name](original, decoded)
        if value is None:
            height, width = original.shape[:2]
            raise UsageError(
                f"{self.label} needs sides of {self.min_side} pixels at least; the picture has "
                f"{width} x {height}"
            )
        return value

    def shown(self, value: float) -> str:
        """A value with label and unit."""
        return f"{self.label} {value:.{self.digits}f}{self.unit}"


# Means of lite over 47 photos for training, every fourth of their fifth shard:
# python scripts/fit_targets.py PHOTO...
_PSNR = (25.35, 26.17, 27.21, 28.28, 29.39, 30.59, 31.78, 32.98, 34.14, 35.14, 35.9)
_MS_SSIM = (0.8563, 0.8825, 0.9104, 0.9328, 0.9497, 0.963, 0.9729, 0.98, 0.9853, 0.9888, 0.991)
_SSIMULACRA2 = (-40.41, -28.71, -11.49, 6.206, 22.43, 37.11, 49.19, 58.87, 66.3, 71.57, 74.84)

METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "PSNR", " dB", 100, 1, 2, _PSNR),
        Metric("ms-ssim", "MS-SSIM", "", 1, 161, 4, _MS_SSIM),
        Metric("ssimulacra2", "SSIMULACRA2", "", 100, 8, 2, _SSIMULACRA2),
    )
}


@dataclass(frozen=True, slots=True)
class Target:
    """A value of a metric that a picture has to reach."""

    metric: Metric
    value: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """From METRIC=VALUE.

        Raises:
            UsageError: an unknown metric, or a value that it does not have.
        """
        name, sign, number = text.partition("=")
        metric = METRICS.get(name.strip().lower())
        if metric is None or not sign:
            raise UsageError(f"target {text!r}: not METRIC=VALUE with one of {', '.join(METRICS)}")
        try:
            value = float(number)
        except ValueError:
            raise UsageError(f"target {text!r}: {number!r} is not a number") from None
        if not 0 <= value <= metric.best:
            raise UsageError(f"target {text!r}: {metric.label} is asked for in 0..{metric.best:g}")
        return cls(metric, value)

    def check_installed(self) -> None:
        """Refuse a metric whose package is not here (UnsupportedError)."""
        if self.metric.name == "ssimulacra2":
            with extra("metrics", self.metric.label):
                import ssimulacra2  # noqa: F401
