"""Gradient search over the symbols of one photo: smaller files at the same quality.

The networks are those of the decoder and the prior in PyTorch; only the symbols move. They are
relaxed: rounded softly, more firmly from step to step, with noise that falls (soft rounding as of
Agustsson and Theis 2020, arXiv:2006.09952). Stochastic Gumbel annealing (Yang et al. 2020,
arXiv:2006.04240) needed ten times as many steps for the same; docs/lite.md has the figures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bkcodec.coding.effort import Tell
from bkcodec.coding.integers import whole_cells
from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.lpips import MIN_SIDE as LPIPS_MIN_SIDE
from bkcodec.models.lpips import Lpips
from bkcodec.options import MAX_LEVEL, level_to_position
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.levelmap import Levels
from bkcodec.prior.tables import Symbols, Tables
from bkcodec.tiling import Window, windows
from bkcodec.train.objectives.shared import MS_SSIM_TO_MSE
from bkcodec.train.objectives.similarity import ms_ssim
from bkcodec.train.prior.network import ContextConfig, ContextNetwork
from bkcodec.train.prior.thaw import thaw

ITERATIONS = (0, 3, 6, 10, 20, 32, 50, 90, 150, 240)  # of each effort
RATES = (0.0, 0.045, 0.035, 0.03, 0.025, 0.02, 0.02, 0.015, 0.015, 0.012)  # steps, in symbols
NOISES = (0.0, 0.03, 0.03, 0.03, 0.06, 0.1, 0.1, 0.1, 0.1, 0.1)  # standard deviations, in symbols
HOT, COLD = 0.35, 0.08  # temperatures of the rounding, at the beginning and at the end
MIN_SIDE = 161  # pixels, below which there is no MS-SSIM
WHOLE = 48 * 36  # cells up to which a picture is searched as a whole
CORE, HALO = 32, 12  # cells of a window of a larger one, and around it
LPIPS_WEIGHT = 0.1  # against 1 - MS-SSIM
CHECK = 10  # iterations after which it is measured what they gained


@contextmanager
def own_state() -> Iterator[None]:
    """PyTorch as a search needs it, whatever is set around; random numbers there stay the same."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a search weighs.

    Attributes:
        similarity: share of MS-SSIM against the squared error, 0..1.
        slope: bits per pixel that a unit of distortion is worth.
        lpips: what is weighed beside these two, or None.
    """

    similarity: float
    slope: float = 0.0
    lpips: Lpips | None = None

    def distortion(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Of pictures [1, 3, H, W] in 0..1, in squared grey levels."""
        share = self.similarity if min(x.shape[-2:]) >= MIN_SIDE else 0.0
        error = (1 - share) * 255**2 * (x_hat - x).square().mean()
        if share:
            error = error + share * MS_SSIM_TO_MSE * (1 - ms_ssim(x_hat.clamp(0, 1), x)[0])
        return error + self.perceived(x_hat, x)

    def perceived(self, x_hat: Tensor, x: Tensor) -> Tensor | float:
        """The part of LPIPS in the distortion; 0 without, and where a picture is too small."""
        if self.lpips is None or min(x.shape[-2:]) < LPIPS_MIN_SIDE:
            return 0.0
        distance: Tensor = self.lpips(x_hat.clamp(0, 1), x)[0]
        return LPIPS_WEIGHT * MS_SSIM_TO_MSE * distance

    @torch.no_grad()
    def perceived_of(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        """The same of pixels uint8 [H, W, 3]."""
        x, x_hat = (torch.tensor(p).permute(2, 0, 1)[None] / 255 for p in (one, other))
        return float(self.perceived(x_hat, x))


class CountedDensity(nn.Module):
    """The prior's counted tables, between whole symbols linear in information."""

    low: Tensor
    information: Tensor

    def __init__(self, tables: Tables, level: int) -> None:
        super().__init__()
        rows = tables.level(level).channels
        longest = max(len(row.weights) for row in rows)
        information = np.zeros((len(rows), longest), np.float32)
        for row, table in zip(information, rows, strict=True):
            weights = np.asarray(table.weights, np.float64)
            if len(weights) > 1:
                row[:] = -math.log2(weights[-1] / weights.sum())
                row[: len(weights)] = -np.log2(weights / weights.sum())
        self.register_buffer("low", torch.tensor([float(row.low) for row in rows]))
        self.register_buffer("information", torch.from_numpy(information))

    def bits(self, z: Tensor, step: Tensor) -> Tensor:
        """Information of z [B, C, h, w], in units of ``step``."""
        channels, longest = self.information.shape
        places = (z / step - self.low[None, :, None, None]).clamp(0, longest - 1)
        below = places.detach().floor().clamp(max=longest - 2).long()
        share = places - below
        rows = torch.arange(channels)[None, :, None, None].expand_as(below)
        return (1 - share) * self.information[rows, below] + share * self.information[
            rows, below + 1
        ]


class LatentSearch:
    """A codec's networks, ready to search.

    Args:
        model: of the bundle, in PyTorch on the CPU.
        prior: of the bundle.
    """

    def __init__(self, model: BkSdmCompression, prior: ContextPrior) -> None:
        self.model, self.prior = model, prior
        self.steps = model.quantiser.all_steps().detach()
        anchors = model.config.anchors
        shape = ContextConfig(tuple(prior.groups), tuple(prior.phases), prior.hidden)
        network = ContextNetwork(shape, anchors)
        state = thaw(prior, self.steps.double(), anchors)
        network.load_state_dict(state, strict=False)
        self.network = network.requires_grad_(False).eval()

    def costs(self, symbols: Tensor, part: _Part, goal: Goal) -> tuple[Tensor, Tensor]:
        """Of relaxed symbols [1, M, h, w]: bits per pixel, and weighted distortion."""
        levels = part.levels
        if isinstance(levels, int):
            step = self.steps[levels][None, :, None, None]
            position = torch.full((1,), level_to_position(levels))
        else:
            step = self.steps[torch.from_numpy(levels).long()].permute(2, 0, 1)[None]
            position = torch.from_numpy(levels)[None] / MAX_LEVEL
        bits = self.network.bits(symbols * step, symbols, step, position)
        x_hat = self.picture(symbols, position, part.x)
        return bits.sum() / part.x[0, 0].numel(), goal.slope * goal.distortion(x_hat, part.x)

    def picture(self, symbols: Tensor, position: Tensor, x: Tensor) -> Tensor:
        """What a decoder makes of symbols in one step, of the size of x."""
        y_hat = self.model.denoiser.once(self.model.believe(symbols, position), position)
        return self.model.reconstruct(y_hat, (x.shape[-2], x.shape[-1]))

    def search(
        self,
        start: NDArray[np.float32],
        rgb: NDArray[np.uint8],
        levels: int | Levels,
        goal: Goal,
        effort: int,
        deadline: float = math.inf,
        tell: Tell = lambda share, saved: None,
    ) -> Symbols:
        """Better symbols int16 [M, h, w] for a photo uint8 [H, W, 3].

        Args:
            start: what the encoder says [M, h, w]: symbols before they are rounded.
            rgb: the photo.
            levels: of quality, of all cells or of each [h, w].
            goal: what counts.
            effort: 1..9.
            deadline: on the monotonic clock; the annealing hurries to be done by then, and what is
                not searched by then stays as it was.
            tell: see ``Tell``.
        """
        relaxed = torch.from_numpy(start)[None].clone()
        rows, columns = start.shape[1:]
        side = CORE if rows * columns > WHOLE else 0
        tiles, began = list(windows(rows, columns, side, HALO)), time.monotonic()
        gains: list[float] = []
        for i, tile in enumerate(tiles):
            if time.monotonic() >= deadline:
                break  # the rest stays as the encoder says
            end = began + (deadline - began) * (i + 1) / len(tiles)
            part = _Part(
                relaxed[(..., *tile.outer)],
                torch.from_numpy(whole_cells(rgb, tile.outer)).permute(2, 0, 1)[None].float() / 255,
                levels if isinstance(levels, int) else levels[tile.outer],
                tile,
            )

            def said(share: float, saved: float | None, done: int = i) -> None:
                whole = None if saved is None else (sum(gains) + saved) / (len(gains) + 1)
                tell((done + share) / len(tiles), whole)

            relaxed[(..., *tile.core)], gained = self._anneal(part, goal, effort, end, said)
            gains.append(gained)
        return relaxed[0].numpy().round().astype(np.int16)

    def _anneal(
        self, part: _Part, goal: Goal, effort: int, end: float, tell: Tell
    ) -> tuple[Tensor, float]:
        """The cells of a window's core; those around stay as they are. And what was saved."""
        inner, (top, left) = part.tile.inner, (place.start for place in part.tile.core)
        generator = torch.Generator().manual_seed(top * 65536 + left)
        first = round(float(np.mean(part.levels)))  # its tables are of one level, about right
        self.network.first = CountedDensity(self.prior.first, first)  # type: ignore[assignment]
        around, free = part.start.round(), part.start[(..., *inner)].clone().requires_grad_(True)
        optimiser = torch.optim.Adam([free])
        saved, is_long = None, ITERATIONS[effort] >= 2 * CHECK
        if is_long:
            rate, distortion = self._rounded_costs(around, part, goal)
        for i, share in enumerate(_shares(ITERATIONS[effort], end)):
            optimiser.param_groups[0]["lr"] = RATES[effort] * (
                0.5 + 0.5 * math.cos(math.pi * share)
            )
            symbols = around.clone()
            temperature = HOT * (COLD / HOT) ** share
            noise = NOISES[effort] * torch.randn(free.shape, generator=generator)
            symbols[(..., *inner)] = softly_rounded(free, temperature, noise)
            optimiser.zero_grad()
            sum(self.costs(symbols, part, goal)).backward()  # type: ignore[union-attr]
            optimiser.step()
            if is_long and i % CHECK == CHECK - 1:
                found = around.clone()
                found[(..., *inner)] = free.detach()
                saved = (rate + distortion - sum(self._rounded_costs(found, part, goal))) / rate
            tell(share, saved)
        return free.detach().round(), saved or 0.0

    @torch.no_grad()
    def _rounded_costs(self, symbols: Tensor, part: _Part, goal: Goal) -> tuple[float, float]:
        rate, distortion = self.costs(symbols.round(), part, goal)
        return float(rate), float(distortion)


@dataclass(frozen=True, slots=True)
class _Part:
    """What is searched at once.

    Attributes:
        start: symbols before they are rounded [1, M, h, w].
        x: their pixels [1, 3, H, W] in 0..1.
        levels: of quality.
        tile: its place.
    """

    start: Tensor
    x: Tensor
    levels: int | Levels
    tile: Window


def softly_rounded(value: Tensor, temperature: float, noise: Tensor) -> Tensor:
    """Numbers moved towards their nearest whole ones, with noise, and moved again."""
    return _towards(_towards(value, temperature) + noise, temperature)


def _towards(value: Tensor, temperature: float) -> Tensor:
    middle = value.detach().floor() + 0.5
    return middle + torch.tanh((value - middle) / temperature) / (2 * math.tanh(0.5 / temperature))


def _shares(iterations: int, end: float) -> Iterator[float]:
    """How far a search is, 0..1, once for each iteration; faster where the time is short."""
    began, share = time.monotonic(), 0.0
    while share < 1:
        yield share
        now = time.monotonic()
        share += 1 / iterations
        if now >= end:
            return
        share = max(share, (now - began) / (end - began)) if end < math.inf else share
