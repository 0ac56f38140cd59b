"""The integer networks of a bundle, ready to run: pixels to z, symbols to pixels."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bkcodec.engine import networks
from bkcodec.engine.bounds import check
from bkcodec.engine.conditions import Conditions
from bkcodec.engine.networks import (
    BIAS_LIMIT,
    GAIN_LIMIT,
    LATENT_LIMIT,
    MANY_STEPS,
    ONE_STEP,
    STREAM_LIMIT,
    Y_EXPONENT,
    Z_EXPONENT,
    Arrays,
)
from bkcodec.engine.program import UNSIGNED, Program
from bkcodec.engine.reference import ReferenceNetwork
from bkcodec.engine.sampling import Latents, Schedule, colour_channels
from bkcodec.engine.shapes import check_arrays, check_program
from bkcodec.errors import UnsupportedError
from bkcodec.machine import n_threads, pick_device

if TYPE_CHECKING:
    from bkcodec.engine.streaming import Stream

log = logging.getLogger(__name__)

Map = NDArray[np.floating]  # type: ignore[type-arg]
CellLevels = int | NDArray[np.uint8]  # of all cells, or of each [h, w]


# Of the inputs: a y is a projection and two more parts.
Y_LIMIT = LATENT_LIMIT + 2 * STREAM_LIMIT
PICTURES = ("synthesis", "picture")  # programs that make some
LARGEST = {"analysis": UNSIGNED[1], "synthesis": LATENT_LIMIT, "knowledge": LATENT_LIMIT}


class Network(Protocol):
    """What every backend offers."""

    def run(self, maps: Mapping[str, NDArray[np.generic]]) -> list[Map]:
        """Maps [C, h, w] by name -> the program's outputs."""


class Runtime:
    """The networks of a bundle; maps of y are whole numbers, see ``real``.

    Args:
        arrays: the bundle's ``int.*`` arrays without that prefix.
        device: cpu, or cuda or mps, which need PyTorch.

    Attributes:
        device: likewise.
        timesteps: of the noise schedule.
        schedule: alphas and spreads for ``sampling.sample``.
        start: [levels], timestep at which denoising starts.
        steps: [levels, M], symbols' size in units of z.
        y_std: [M], size of y.
        is_colour: [M], of each channel of y, see ``sampling.colour_channels``.
        reach: cells of z on each side that matter.

    Raises:
        UnsupportedError: arrays that are missing, do not fit, or could give numbers out of range;
            no such device.
    """

    def __init__(self, arrays: Arrays, device: str = "cpu") -> None:
        if device != "cpu":
            pick_device(device)
        self.device = device
        try:
            check_arrays(arrays)
            self._programs = {
                "analysis": networks.analysis(arrays),
                "synthesis": networks.synthesis(arrays),
                "knowledge": networks.knowledge(arrays),
                "one step": networks.prediction(arrays, ONE_STEP),
                "many steps": networks.prediction(arrays, MANY_STEPS),
                "picture": networks.picture(arrays, 1.0),
            }
            m = len(arrays["y_std"])
            for name, program in self._programs.items():
                inputs = [3] if program.byte_inputs else [m] * len(program.inputs)
                outputs = [3] if name in PICTURES else [m] * len(program.outputs)
                check_program(program, inputs, outputs, arrays)
                check(program, LARGEST.get(name, Y_LIMIT), (GAIN_LIMIT, BIAS_LIMIT))
            self._arrays, self._conditions = arrays, Conditions(arrays)
            self.timesteps, self.start = len(arrays["time"]), arrays["start"]
            self.schedule = Schedule(arrays["alphas"], arrays["spreads"])
            self.y_std = arrays["y_std"]
            self.is_colour = colour_channels(arrays["vae.decoder.linear.weight"])
            self.reach = networks.reaches(arrays)
            self._dequantise = arrays["dequantise"].astype(np.float32)
            # z over this is a symbol before it is rounded.
            self.steps = arrays["steps"].astype(np.float64) * 2.0**Z_EXPONENT
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise UnsupportedError(f"the bundle's integer networks do not fit: {error}") from error
        self._workers = 0  # 0 = a single tile
        self._networks: dict[str, tuple[float, Network]] = {}  # with the weight of the texture
        self._lock = threading.Lock()

    def among(self, workers: int) -> Runtime:
        """A copy for many tiles in so many threads, whose networks keep their memory."""
        if self.device != "cpu":
            return self
        other = copy.copy(self)
        other._workers, other._networks = workers, {}
        return other

    def _network(self, name: str, texture: float = 1.0) -> Network:
        with self._lock:
            opened = self._networks.get(name)
            if opened is None or opened[0] != texture:
                opened = self._networks[name] = texture, self._open(name, texture)
        return opened[1]

    def _open(self, name: str, texture: float) -> Network:
        program = self._programs[name] if texture == 1 else networks.picture(self._arrays, texture)
        if self.device != "cpu":
            from bkcodec.engine.torch import TorchNetwork

            return TorchNetwork(program, pick_device(self.device))
        threads = max(1, n_threads() // max(1, self._workers))
        return open_network(program, threads, keeps=self._workers > 0)

    def stream(self, name: str) -> Stream | None:
        """A network for bands of large pictures, where the backend can do that.

        Args:
            name: analysis or synthesis.
        """
        if self.device != "cpu":
            return None
        return open_stream(self._programs[name], getattr(self.reach, name))

    def analyse(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pixels uint8 [H, W, 3] of whole cells -> y, and z in whole units, both [C, h, w]."""
        z, y = self._network("analysis").run({"pixels": rgb.transpose(2, 0, 1)})
        return float_y(y), z.astype(np.float32)

    def synthesise(
        self, symbols: NDArray[np.int16], levels: CellLevels, timestep: int | None
    ) -> NDArray[np.uint8]:
        """Symbols [M, h, w] of a level, or of that of each cell [h, w] -> pixels [16 h, 16 w, 3].

        ``timestep``: at which the U-Net's single step starts; None = what the level says.
        """
        return pixels(self._network("synthesis").run(self.code(symbols, levels, timestep)))

    def code(
        self, symbols: NDArray[np.int16], levels: CellLevels, timestep: int | None = None
    ) -> dict[str, Map]:
        """What the decoder's networks are given of symbols; see ``synthesise``."""
        maps = self._conditions.maps(levels, timestep)
        # What float32 does not hold exactly is beyond the limit.
        z_hat = np.ascontiguousarray(symbols.transpose(1, 2, 0), np.float32)
        z_hat *= self._dequantise[levels]
        maps["z_hat"] = z_hat.clip(-LATENT_LIMIT, LATENT_LIMIT, out=z_hat).transpose(2, 0, 1)
        return maps

    def know(self, symbols: NDArray[np.int16], levels: CellLevels) -> tuple[Map, Map]:
        """Symbols [M, h, w] -> mean and log scale of y, standardised, both [M, h, w]."""
        mean, log_scale = self._network("knowledge").run(self.code(symbols, levels))
        return mean, log_scale

    def predict(
        self,
        y_t: Map,
        known: tuple[Map, Map],
        levels: CellLevels,
        timestep: int | None,
        is_only: bool,
    ) -> Map:
        """What the U-Net takes a noisy y for [M, h, w], with ``known`` from ``know``.

        ``is_only``: the single step from the mean; else one of several, with the other branch.
        """
        maps = self._conditions.maps(levels, timestep)
        name = "one step" if is_only else "many steps"
        names = "y_t", "mean", "log_scale"
        given = dict(zip(names, (y_t, *known), strict=True))
        (y_hat,) = self._network(name).run(maps | given)
        return y_hat

    def picture(self, y_hat: Map, texture: float) -> NDArray[np.uint8]:
        """Standardised y_hat [M, h, w] -> pixels [16 h, 16 w, 3].

        ``texture``: 0..1, weight of what the VAE decoder adds after several steps.
        """
        return pixels(self._network("picture", texture).run({"y_hat": y_hat}))


def empty_map(shape: tuple[int, ...]) -> Map:
    """A map [C, h, w] that lies in memory as networks like it: the channels of a place together."""
    channels, height, width = shape
    return np.empty((height, width, channels), np.float32).transpose(2, 0, 1)


def real(latents: Map) -> Latents:
    """What a map of y stands for."""
    numbers: Latents = latents.astype(np.float64) * 2.0**-Y_EXPONENT
    return numbers


def as_map(numbers: Latents) -> Map:
    """The nearest map of y."""
    whole = np.rint(numbers * 2.0**Y_EXPONENT).clip(-LATENT_LIMIT, LATENT_LIMIT)
    return np.asarray(whole, np.float32)


def float_y(y: Map) -> NDArray[np.float32]:
    """Maps of y as numbers."""
    numbers: NDArray[np.float32] = (y * 2.0**-Y_EXPONENT).astype(np.float32)
    return numbers


def pixels(outputs: list[Map]) -> NDArray[np.uint8]:
    """The only output, [3, h, w], as pixels [h, w, 3]."""
    return outputs[0].transpose(1, 2, 0).astype(np.uint8, copy=False)


def open_network(program: Program, threads: int, keeps: bool) -> Network:
    """The fastest backend for CPUs that is installed."""
    try:
        from bkcodec.engine.onnx import OnnxNetwork
    except ImportError:
        log.warning("ONNX Runtime is not installed: NumPy does its work, slowly")
        return ReferenceNetwork(program)
    return OnnxNetwork(program, threads, keeps)


def open_stream(program: Program, reach: int) -> Stream | None:
    """For bands, if ONNX Runtime is installed."""
    try:
        from bkcodec.engine.streaming import Stream
    except ImportError:
        return None
    return Stream(program, reach)
