"""The integer networks of a bundle, ready to run: pixels to z, symbols to pixels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine.bounds import check
from bkcodec.engine.conditions import Conditions
from bkcodec.engine.networks import (
    BIAS_LIMIT,
    GAIN_LIMIT,
    LATENT_LIMIT,
    PIXEL,
    Y_EXPONENT,
    Z_EXPONENT,
    Arrays,
    analysis,
    reaches,
    synthesis,
)
from bkcodec.engine.program import Program
from bkcodec.engine.reference import ReferenceNetwork
from bkcodec.errors import UnsupportedError
from bkcodec.machine import n_threads

log = logging.getLogger(__name__)

Maps = Mapping[str, NDArray[np.generic]]


class Network(Protocol):
    """What every backend offers."""

    def run(self, maps: Maps) -> list[NDArray[np.floating]]:  # type: ignore[type-arg]
        """Maps [C, h, w] by name -> the program's outputs."""


class Runtime:
    """The networks of a bundle.

    Args:
        arrays: the bundle's ``int.*`` arrays without that prefix.

    Attributes:
        timesteps: of the noise schedule.
        steps: [levels, M], symbols' size in units of z.
        encoder_reach, decoder_reach: cells of z on each side that matter for the code of a cell and
            for its pixels; the second is even, as the U-Net halves the cells.

    Raises:
        UnsupportedError: arrays that are missing, do not fit, or could give numbers out of range.
    """

    def __init__(self, arrays: Arrays) -> None:
        try:
            self._programs = {"analysis": analysis(arrays), "synthesis": synthesis(arrays)}
            for name, program in self._programs.items():
                largest = PIXEL[1] if name == "analysis" else LATENT_LIMIT
                check(program, largest, (GAIN_LIMIT, BIAS_LIMIT))
            self._conditions = Conditions(arrays)
            self.timesteps = len(arrays["time"])
            self.encoder_reach, self.decoder_reach = reaches(arrays)
            self._dequantise = arrays["dequantise"].astype(np.float64)
            # z over this is a symbol before it is rounded.
            self.steps = arrays["steps"].astype(np.float64) * 2.0**Z_EXPONENT
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise UnsupportedError(f"the bundle's integer networks do not fit: {error}") from error

    @cached_property
    def _analysis(self) -> Network:
        return open_network(self._programs["analysis"])

    @cached_property
    def _synthesis(self) -> Network:
        return open_network(self._programs["synthesis"])

    def analyse(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pixels uint8 [H, W, 3] of whole cells -> y, and z in whole units, both [C, h, w]."""
        pixels = rgb.transpose(2, 0, 1).astype(np.float32) * 2 - 255
        z, y = self._analysis.run({"pixels": pixels})
        return (y * 2.0**-Y_EXPONENT).astype(np.float32), z.astype(np.float32)

    def synthesise(
        self, symbols: NDArray[np.int16], levels: int | NDArray[np.uint8], timestep: int | None
    ) -> NDArray[np.uint8]:
        """Symbols [M, h, w] of a level, or of that of each cell [h, w] -> pixels [16 h, 16 w, 3].

        ``timestep``: at which the U-Net's single step starts; None = what the level says.
        """
        scale = self._dequantise[levels]
        scale = scale[:, None, None] if scale.ndim == 1 else scale.transpose(2, 0, 1)
        z_hat = (symbols * scale).clip(-LATENT_LIMIT, LATENT_LIMIT)
        maps = {"z_hat": z_hat, **self._conditions.maps(levels, timestep)}
        (pixels,) = self._synthesis.run(maps)
        return pixels.astype(np.uint8).transpose(1, 2, 0)


def open_network(program: Program) -> Network:
    """The fastest backend that is installed."""
    try:
        from bkcodec.engine.onnx import OnnxNetwork
    except ImportError:
        log.warning("ONNX Runtime is not installed: NumPy does its work, slowly")
        return ReferenceNetwork(program)
    return OnnxNetwork(program, n_threads())
