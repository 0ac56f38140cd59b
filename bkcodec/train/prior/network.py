"""The context prior in training: the networks of ``bkcodec.prior.context`` with fake quantisation.

The forward pass rounds weights, activations and outputs to the grids of the integer networks, the
backward pass ignores the rounding (straight-through). ``integers`` gives the bundle's arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bkcodec.models.blocks import interpolate_rows, quality_rows, rounded
from bkcodec.prior.arrays import PHASES, Phase
from bkcodec.prior.exact import EXACT, FEATURE_MAX, FRACTIONS, HIDDEN_MAX
from bkcodec.prior.tables import Integers
from bkcodec.prior.walk import GAIN_SHIFT
from bkcodec.train.prior.density import ContinuousPrior

# Integer units of the networks' values: x in the network is the integer x * unit in the bundle.
FEATURE_UNIT, HIDDEN_UNIT, MEAN_UNIT = 32, 128, 64
# A scale index stands for a logistic distribution of scale 2^((index - ONE) / PER_OCTAVE) symbols.
SCALES, PER_OCTAVE, ONE = 48, 4, 20
FINE = 24  # from this scale index on, means are rounded to whole symbols
MAX_EXPONENT = 10  # weights are stored in units of 2^-exponent
WEIGHT_MAX = 127
FIRST_MAX = 63  # of first layers, whose kernels may add two products with bytes in 16 bits

Lattice = tuple[slice, slice]  # rows and columns, from the first cell on, with a step


def group_sizes(channels: int) -> tuple[int, ...]:
    """Groups of 4, 4, 8, 16, 32, 64 channels and the rest."""
    groups: list[int] = []
    for size in (4, 4, 8, 16, 32, 64, channels):
        groups.append(min(size, channels - sum(groups)))
    return tuple(n for n in groups if n)


@dataclass(frozen=True, slots=True)
class ContextConfig:
    """Shape of the context prior.

    Attributes:
        groups: channels of each group.
        phases: phases of each group.
        hidden: width of its networks.
    """

    groups: tuple[int, ...] = (4, 4, 8, 16, 32, 64, 96)
    phases: tuple[int, ...] = (2, 2, 2, 2, 2, 2, 2)
    hidden: int = 48


def shape_of(state: dict[str, Tensor]) -> ContextConfig:
    """The shape of the prior that has these weights."""
    last = {
        tuple(map(int, k.split(".")[1].split("_"))): v
        for k, v in state.items()
        if k.endswith(".third")
    }
    outputs = {group: len(weight) // 2 for (group, _), weight in last.items()}
    later = tuple(outputs[g] for g in range(1, 1 + max(outputs)))
    groups = (len(state["order"]) - sum(later), *later)
    phases = tuple(
        1 + max((p for group, p in last if group == g), default=0) for g in range(len(groups))
    )
    return ContextConfig(groups, phases, next(iter(last.values())).shape[1])


def spread_phases(state: dict[str, Tensor], config: ContextConfig) -> dict[str, Tensor]:
    """A prior's weights for more phases: new ones start as one that there was.

    The last three of four, seven and ten phases are the same cells, so each keeps its own.
    """
    numbers = [tuple(map(int, k.split(".")[1].split("_"))) for k in state if k.endswith(".second")]
    spread = {k: v for k, v in state.items() if not k.startswith("networks.")}
    for g, phases in enumerate(config.phases):
        last = max((p for group, p in numbers if group == g), default=0)
        for p in range(phases):
            from_end = last - (phases - 1 - p)
            source = p if last < 3 or not p else max(from_end, (p - 1) % 3 + 1)
            old, new = f"networks.{g}_{min(source, last)}.", f"networks.{g}_{p}."
            spread |= {new + k.removeprefix(old): v for k, v in state.items() if k.startswith(old)}
    return spread


class ContextNetwork(nn.Module):
    """Predicts every symbol of z from what is decoded before it; gives the rate of z.

    Args:
        config: groups, phases, hidden width; the groups add up to the channels of z.
        anchors: rows of the per-quality biases.
    """

    order: Tensor
    spread: Tensor

    def __init__(self, config: ContextConfig, anchors: int) -> None:
        super().__init__()
        self.config, hidden = config, config.hidden
        channels = sum(config.groups)
        self.ends = np.cumsum(config.groups).tolist()
        self.starts = [0, *self.ends[:-1]]
        self.first = ContinuousPrior(config.groups[0])
        self.register_buffer("order", torch.arange(channels))  # coding order
        self.register_buffer("spread", torch.ones(channels))  # of z, in coding order
        self.shared = nn.ParameterList(
            _random(hidden, 2 * start, 3) for start in self.starts
        )  # of group 0: empty
        networks: dict[str, nn.Module] = {}
        for g, n in enumerate(config.groups):
            for p in range(config.phases[g]):
                if (g, p) != (0, 0):
                    networks[f"{g}_{p}"] = _Phase(2 * n if p else 0, hidden, 2 * n, anchors)
        self.networks = nn.ModuleDict(networks)

    @torch.no_grad()
    def measure(self, z: Tensor) -> None:
        """Take spread and coding order from sample values of z [B, C, h, w]."""
        spread = z.std(dim=(0, 2, 3)).clamp_min(1e-4)
        self.order.copy_(torch.argsort(-spread))
        self.spread.copy_(spread[self.order])
        self.first.z_std.copy_(self.spread[: self.config.groups[0]])

    def bits(self, z: Tensor, symbols: Tensor, step: Tensor, position: Tensor) -> Tensor:
        """Information of z given its quantised neighbours.

        Every phase is evaluated on its own cells alone.

        Args:
            z: [B, C, h, w]: noisy in training, symbols * step for the rate of symbols.
            symbols: [B, C, h, w], integers: what the networks see.
            step: [B, C, 1, 1], or [B, C, h, w] with a level map.
            position: [B] or [B, h, w], 0..1.

        Returns:
            [B, h, w], bits of each cell.
        """
        z, symbols, step = z[:, self.order], symbols[:, self.order], step[:, self.order]
        ratio = self.spread[None, :, None, None] / step
        features, bits = self._features(symbols, ratio), torch.zeros_like(z[:, 0])
        for g in range(len(self.config.groups)):
            begin, end = self.starts[g], self.ends[g]
            exponent = self._first_exponent(g)
            total = torch.zeros_like(z[:, :1])
            if g:
                earlier = _round_to(self.shared[g], exponent, FIRST_MAX)
                total = F.conv2d(features[:, : 2 * begin], earlier, padding=1)
            own, decoded = features[:, 2 * begin : 2 * end], torch.zeros_like(z[:1, :1])
            for p, phase in enumerate(PHASES[self.config.phases[g]]):
                seen = F.pad(own * decoded, (phase.reach,) * 4) if p else None
                decoded = decoded.clone()
                for lattice in lattices(phase, *z.shape[2:]):
                    target = z[(..., *lattice)][:, begin:end]
                    width = on(lattice, step)[:, begin:end]
                    if (g, p) == (0, 0):
                        information = self.first.bits(target, width)
                    else:
                        network, sums = self.network(g, p), total[(..., *lattice)]
                        if seen is not None:
                            sums = sums + network.see(seen, exponent, lattice, phase.reach)
                        out = network(sums, on(lattice, position))
                        own_ratio = on(lattice, ratio)[:, begin:end]
                        information = _logistic_bits(out, target / width, own_ratio)
                    bits[(..., *lattice)] += information.sum(dim=1)
                    decoded[(..., *lattice)] = 1
        return bits

    @torch.no_grad()
    def integers(self, steps: Tensor) -> dict[str, Integers]:
        """The bundle's arrays, all but the tables, for step sizes [levels, C]."""
        levels = len(steps)
        position = torch.linspace(0, 1, levels, device=steps.device)
        ratio = self.spread / steps[:, self.order]  # [levels, C]
        one = 1 << GAIN_SHIFT
        arrays: dict[str, Integers] = {
            "groups": np.array(self.config.groups, np.int16),
            "phases": np.array(self.config.phases, np.int16),
            "order": self.order.cpu().numpy().astype(np.int16),
            "gain": _whole(one * FEATURE_UNIT / ratio, np.int32),
            "mean_gain": _whole(one * FRACTIONS * ratio / MEAN_UNIT, np.int32),
            "magnitude": _whole(_magnitude(torch.arange(256.0)), np.uint8),
            "fine": np.array([FINE], np.int16),
        }
        for g, n in enumerate(self.config.groups):
            exponent = self._first_exponent(g)
            if g:
                arrays[f"{g}.shared"] = _matrix(self.shared[g], exponent, FIRST_MAX)
            for p in range(self.config.phases[g]):
                if (g, p) != (0, 0):
                    offset = torch.log2(ratio[:, self.starts[g] : self.starts[g] + n])
                    network = self.network(g, p)
                    for name, array in network.integers(position, exponent, offset).items():
                        arrays[f"{g}.{p}.{name}"] = array
        return arrays

    def _features(self, symbols: Tensor, ratio: Tensor) -> Tensor:
        """Symbols in coding order -> [B, 2 C, h, w], value and magnitude of each channel."""
        limit = FEATURE_MAX / FEATURE_UNIT
        value = rounded(symbols / ratio * FEATURE_UNIT) / FEATURE_UNIT
        pair = torch.stack([value.clamp(-limit, limit), _magnitude(symbols) / FEATURE_UNIT], dim=2)
        return pair.flatten(1, 2)

    def _first_exponent(self, g: int) -> Tensor:
        """Of the first layers of a group, whose products meet in one sum."""
        own = [self.network(g, p).own for p in range(1, self.config.phases[g])]
        rows = torch.cat([w.flatten(1) for w in (self.shared[g], *own)], dim=1)
        return _exponent(rows, FEATURE_MAX, FIRST_MAX, least=3)

    def network(self, group: int, phase: int) -> _Phase:
        """Of one phase of a group; the first phase of the first group has none."""
        network = self.networks[f"{group}_{phase}"]
        assert isinstance(network, _Phase)
        return network


class _Phase(nn.Module):
    """The three layers of one phase; all outputs [B, outputs, h, w]."""

    def __init__(self, own: int, hidden: int, outputs: int, anchors: int) -> None:
        super().__init__()
        self.own = _random(hidden, own, 3)
        self.second, self.third = _random(hidden, hidden, 1), _random(outputs, hidden, 1)
        nn.init.zeros_(self.third)
        self.bias1, self.bias2, self.bias3 = (
            nn.Parameter(torch.zeros(anchors, n)) for n in (hidden, hidden, outputs)
        )
        with torch.no_grad():
            self.bias3[:, outputs // 2 :] = -1.0

    def see(self, seen: Tensor, exponent: Tensor, lattice: Lattice, reach: int) -> Tensor:
        """Sums over own symbols [B, own, h + 2 * reach, w + 2 * reach] for the lattice's cells."""
        (rows, columns), weight = lattice, _round_to(self.own, exponent, FIRST_MAX)
        part = seen[..., rows.start :, columns.start :]
        return F.conv2d(part, weight, stride=rows.step, dilation=reach)

    def forward(self, total: Tensor, position: Tensor) -> Tensor:
        """Sums of the first layer -> means and log2 scales."""
        out = total + quality_rows(self.bias1, position)
        for weight, bias in ((self.second, self.bias2), (self.third, self.bias3)):
            rounded = _round_to(weight, _hidden_exponent(weight), WEIGHT_MAX)
            out = F.conv2d(_activate(out), rounded) + quality_rows(bias, position)
        return out

    def integers(self, position: Tensor, exponent: Tensor, offset: Tensor) -> dict[str, Integers]:
        """Arrays of the three layers; ``offset`` [levels, outputs / 2] is added to log2 scales."""
        outputs, device = len(self.third), offset.device
        hidden = torch.full((len(self.second),), float(HIDDEN_UNIT), device=device)
        units = torch.full((outputs,), float(MEAN_UNIT), device=device)
        units[outputs // 2 :] = PER_OCTAVE
        added = torch.cat([torch.zeros_like(offset), offset + ONE / PER_OCTAVE], dim=1)
        arrays: dict[str, Integers] = {}

        def store(i: int, weight: Tensor, k: Tensor, rows: Tensor, unit: int, out: Tensor) -> None:
            if i > 1:  # a bias beyond the usual costs precision of the weights
                reach = HIDDEN_MAX * weight.abs().flatten(1).sum(1) + unit * rows.abs().amax(0)
                beyond = torch.log2(reach * torch.exp2(k) / (0.98 * EXACT)).ceil()
                k = k - beyond.clamp_min(0)
            arrays[f"{i}.weight"] = _matrix(weight, k, FIRST_MAX if i == 1 else WEIGHT_MAX)
            arrays[f"{i}.bias"] = _whole(rows * torch.exp2(k) * unit, np.int32)
            arrays[f"{i}.shift"] = _whole(k + math.log2(unit) - torch.log2(out), np.int8)

        rows = [interpolate_rows(b, position) for b in (self.bias1, self.bias2, self.bias3)]
        second, third = (_hidden_exponent(w) for w in (self.second, self.third))
        store(1, self.own, exponent, rows[0], FEATURE_UNIT, hidden)
        store(2, self.second, second, rows[1], HIDDEN_UNIT, hidden)
        store(3, self.third, third, rows[2] + added, HIDDEN_UNIT, units)
        return arrays


def _random(outputs: int, inputs: int, side: int) -> nn.Parameter:
    spread = math.sqrt(2 / max(1, inputs * side * side))
    weight = torch.randn(outputs, inputs, side, side) * spread
    return nn.Parameter(weight, requires_grad=inputs > 0)  # none: nothing is known yet


def lattices(phase: Phase, height: int, width: int) -> list[Lattice]:
    """The lattices of a phase in a map of this size, but for those without a cell."""
    return [
        (slice(row, None, phase.spacing), slice(column, None, phase.spacing))
        for row, column in phase.origins
        if row < height and column < width
    ]


def on(lattice: Lattice, x: Tensor) -> Tensor:
    """The values [..., h, w] of a lattice's cells; what holds for all cells as it is."""
    return x if x.ndim == 1 or x.shape[-2:] == (1, 1) else x[(..., *lattice)]


def _logistic_bits(out: Tensor, scaled: Tensor, ratio: Tensor) -> Tensor:
    """Information of z / step under predicted logistic distributions, on the integer prior's grids.

    Args:
        out: [B, 2 n, h, w], means in units of spread and log2 scales, likewise.
        scaled: z / step [B, n, h, w].
        ratio: spread / step [B, n, 1, 1] or [B, n, h, w].
    """
    mean, scale = out.chunk(2, dim=1)
    mean = rounded(mean * MEAN_UNIT) / MEAN_UNIT * ratio
    index = rounded(PER_OCTAVE * (scale + torch.log2(ratio)) + ONE).clamp(0, SCALES - 1)
    fine = rounded(mean * FRACTIONS) / FRACTIONS
    mean = torch.where(index < FINE, fine, rounded(mean))
    width = torch.exp2((index - ONE) / PER_OCTAVE)
    residual = (scaled - mean).abs()  # symmetric: the side where sigmoid does not saturate
    upper, lower = (0.5 - residual) / width, (-0.5 - residual) / width
    p = (torch.sigmoid(upper) - torch.sigmoid(lower)).clamp_min(1e-9)
    return -torch.log2(p)


def _magnitude(symbols: Tensor) -> Tensor:
    """log2(1 + |symbol|) in 1/16, an integer of 0..127."""
    return rounded(16 * torch.log2(1 + symbols.abs())).clamp(max=FEATURE_MAX)


def _activate(x: Tensor) -> Tensor:
    return rounded(x * HIDDEN_UNIT).clamp(0, HIDDEN_MAX) / HIDDEN_UNIT


@torch.no_grad()
def _exponent(rows: Tensor, largest: int, most: int, least: int) -> Tensor:
    """Largest k, a row, with |w| * 2^k <= most and all sums for inputs of ``largest`` exact."""
    if not rows.shape[1]:
        return torch.full((len(rows),), float(MAX_EXPONENT), device=rows.device)
    reach = 0.9 * EXACT / largest  # the rest is for the bias
    limits = torch.stack([most / rows.abs().amax(1), reach / rows.abs().sum(1)]).amin(0)
    return torch.log2(limits).floor().clamp(least, MAX_EXPONENT)


def _hidden_exponent(weight: Tensor) -> Tensor:
    return _exponent(weight.flatten(1), HIDDEN_MAX, WEIGHT_MAX, least=1)


def _round_to(weight: Tensor, exponent: Tensor, most: int) -> Tensor:
    """Weights [outputs, ...] to multiples of 2^-exponent, ``most`` of them at most."""
    unit = torch.exp2(exponent).reshape(-1, *[1] * (weight.ndim - 1))
    return rounded(weight * unit).clamp(-most, most) / unit


@torch.no_grad()
def _matrix(weight: Tensor, exponent: Tensor, most: int) -> Integers:
    """[outputs, inputs, side, side] -> int8 [side * side * inputs, outputs]."""
    unit = torch.exp2(exponent).reshape(-1, 1, 1, 1)
    whole = (weight * unit).round().clamp(-most, most).permute(2, 3, 1, 0)
    return _whole(whole.reshape(-1, len(weight)), np.int8)


def _whole(x: Tensor, dtype: type[np.integer]) -> Integers:  # type: ignore[type-arg]
    limit = np.iinfo(dtype)
    return x.cpu().double().round().clamp(int(limit.min), int(limit.max)).numpy().astype(dtype)
