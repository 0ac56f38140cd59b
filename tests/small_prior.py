"""A context prior of 14 channels that is made in no time, for tests."""

from __future__ import annotations

import torch

from bkcodec.options import LEVELS
from bkcodec.prior.build import build_tables, laplace_cumulative
from bkcodec.prior.context import ContextPrior
from bkcodec.train.prior.freeze import freeze
from bkcodec.train.prior.network import ContextConfig, ContextNetwork

CHANNELS = 14


class Steps:
    """Stands for a model: its quantisation steps."""

    def __init__(self) -> None:
        self.quantiser = self

    def step(self, position: torch.Tensor) -> torch.Tensor:
        return (0.8 * 0.1**position)[:, None, None, None].expand(-1, CHANNELS, 1, 1)

    def all_steps(self) -> torch.Tensor:
        return self.step(torch.linspace(0, 1, LEVELS))[:, :, 0, 0]


def random_network(phases: int = 2, seed: int = 0, noise: float = 0.1) -> ContextNetwork:
    torch.manual_seed(seed)
    network = ContextNetwork(ContextConfig((2, 4, 8), (phases,) * 3, 16), 10)
    network.measure(draw(seed + 1, 24, 24)[None])
    with torch.no_grad():
        for name, parameter in network.networks.named_parameters():
            parameter.add_(torch.randn_like(parameter) * noise * (3 if "bias" in name else 1))
    return network


def draw(seed: int, height: int, width: int) -> torch.Tensor:
    """z [C, h, w] whose channels have different spreads, in no order."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 4, CHANNELS).reshape(2, -1).t().flatten()
    return torch.randn(CHANNELS, height, width, generator=generator) * spread[:, None, None]


def integer_prior(network: ContextNetwork) -> ContextPrior:
    n = network.config.groups[0]
    steps = Steps().all_steps()[:, :n].numpy()
    spread = network.spread[:n].numpy()
    first = build_tables(laplace_cumulative(spread), steps, 12 * spread)
    return freeze(Steps(), network, first)  # type: ignore[arg-type]
