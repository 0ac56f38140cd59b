"""What training is judged by, and what the counted tables are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_prior import Steps, draw, random_network

from bkcodec.models.compression import BkSdmCompression
from bkcodec.models.config import ModelConfig
from bkcodec.prior.context import ContextPrior
from bkcodec.prior.parts import PredictedPart
from bkcodec.train.options import TrainOptions
from bkcodec.train.prior import count
from bkcodec.train.prior.network import ContextConfig, ContextNetwork
from bkcodec.train.validate import Row, Validation


def test_channels_that_are_not_coded_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would make the tables look surer than they are."""
    network, counters = random_network(), []

    class Watched(count.Counter):
        def __init__(self, prior: ContextPrior) -> None:
            super().__init__(prior)
            self.coded_symbols = 0
            counters.append(self)

        def add(self, symbols: np.ndarray, level: int) -> None:
            super().add(symbols, level)
            walk = self.prior.level(level).walk(*symbols.shape[1:])
            for part in walk:
                part.values = part.of(walk.rows_of(symbols)).astype(np.int32)
                if isinstance(part, PredictedPart):
                    n_coded = self.prior.coded[level][part.channels].sum()
                    self.coded_symbols += len(part.where) * n_coded

    monkeypatch.setattr(count, "Counter", Watched)
    model = Steps()
    model.h_a = lambda y: y  # type: ignore[attr-defined]
    photos = [draw(i, 24, 20)[None] / 8 for i in range(3)]
    prior = count.count_tables(model, photos, network)  # type: ignore[arg-type]
    assert isinstance(prior, ContextPrior) and not prior.coded.all()
    assert counters[0].counts.sum() == counters[0].coded_symbols > 0


def test_what_is_best_is_what_training_minimises() -> None:
    """Mean colours and LPIPS count too."""
    config = ModelConfig(N=16, M=32)
    model, prior = BkSdmCompression(config), ContextNetwork(ContextConfig((4, 28)), config.anchors)
    options = TrainOptions(lpips_weight=0.5)
    judge = Validation(model, prior, options)
    row = Row(0.5, 0.2, 30.0, 0.96, 0.25, colour=12.0)
    lam = float(options.lambda_at(torch.tensor(0.5)))
    distortion = 0.3 * 255**2 / 1000 + 0.7 * 1270 * 0.04 + 12 + 0.5 * 1270 * 0.25
    assert judge.cost([row]) == pytest.approx((0.2 + lam * distortion) / (20 * lam**0.5))
