"""The learned density of what is coded first, against CompressAI's where that is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bkcodec.train.prior.density import ContinuousPrior

CHANNELS = 3


@pytest.fixture
def ours() -> ContinuousPrior:
    """One in which nothing is at its start any more."""
    torch.manual_seed(1)
    prior = ContinuousPrior(CHANNELS)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return prior


@pytest.fixture
def theirs(ours: ContinuousPrior) -> Any:
    """CompressAI's module with the same tensors."""
    models = pytest.importorskip("compressai.entropy_models")
    bottleneck = models.EntropyBottleneck(CHANNELS, init_scale=4)
    state = {k: v for k, v in ours.state_dict().items() if k != "z_std"}
    bottleneck.load_state_dict(state)
    return bottleneck


def test_the_tensors_are_compressais(ours: ContinuousPrior, theirs: Any) -> None:
    """Names, shapes, kinds and order: runs whose checkpoints were written with it go on."""
    state, other = ours.state_dict(), theirs.state_dict()
    assert state.keys() - {"z_std"} == other.keys()
    for name, tensor in other.items():
        assert state[name].shape == tensor.shape and state[name].dtype == tensor.dtype, name
    learned = [name for name, _ in theirs.named_parameters() if name != "quantiles"]
    assert [name for name, _ in ours.named_parameters()] == learned  # as Adam counts them


def test_a_fresh_density_is_compressais() -> None:
    models = pytest.importorskip("compressai.entropy_models")
    torch.manual_seed(4)
    own = ContinuousPrior(CHANNELS)
    torch.manual_seed(4)
    other = models.EntropyBottleneck(CHANNELS, init_scale=4)
    for name, parameter in own.named_parameters():
        assert torch.allclose(parameter, other.get_parameter(name)), name


def test_values_and_gradients_are_compressais(ours: ContinuousPrior, theirs: Any) -> None:
    """With a step of 1 and a z_std of 1 ours is the likelihood of that module."""
    ours.double()
    theirs.double()
    z = (6 * torch.randn(2, CHANNELS, 9, 7, dtype=torch.float64)).requires_grad_()
    weight = torch.rand(z.shape, dtype=torch.float64)  # so that every value counts differently
    bits = ours.bits(z, torch.ones(1, CHANNELS, 1, 1))
    (bits * weight).sum().backward()
    own_gradient, z.grad = z.grad, None
    rows = z.permute(1, 0, 2, 3).reshape(CHANNELS, 1, -1)  # as it takes them
    likelihood = theirs._likelihood(rows)[0].reshape(CHANNELS, 2, 9, 7).permute(1, 0, 2, 3)
    expected = -likelihood.log2()
    (expected * weight).sum().backward()
    assert torch.allclose(bits, expected, rtol=1e-6)
    assert own_gradient is not None and z.grad is not None
    assert torch.allclose(own_gradient, z.grad, rtol=1e-5)
    for name, parameter in ours.named_parameters():
        gradient = theirs.get_parameter(name).grad
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert torch.allclose(parameter.grad, gradient, rtol=1e-5), name


def test_a_cumulative_never_falls(ours: ContinuousPrior) -> None:
    ours.z_std.fill_(2.0)
    rising = ours.cumulative(torch.linspace(-60, 60, 1001).expand(CHANNELS, -1))
    assert (rising.diff() >= 0).all()
    assert (rising[:, 0] < 0.05).all() and (rising[:, -1] > 0.95).all()
