from __future__ import annotations

import pytest
import torch
from torch import nn

from glm_core.train.ema import EMA


def test_average_follows_formula_when_updated() -> None:
    layer = nn.Linear(2, 1, bias=False)
    ema = EMA(layer, decay=0.5)
    expected = layer.weight.detach().clone()
    for step in range(20):
        with torch.no_grad():
            layer.weight.add_(1.0)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    torch.testing.assert_close(ema.state_dict()["weight"], expected)


def test_weights_come_back_when_average_was_applied() -> None:
    layer = nn.Linear(2, 2)
    ema = EMA(layer, decay=0.5)
    average = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(3.0)
    trained = layer.weight.detach().clone()
    with pytest.raises(RuntimeError), ema.applied():
        assert torch.equal(layer.weight, average)
        raise RuntimeError
    assert torch.equal(layer.weight, trained)
    assert torch.equal(ema.state_dict()["weight"], average)


def test_error_names_parameter_when_state_does_not_fit() -> None:
    ema = EMA(nn.Linear(2, 2), decay=0.5)
    with pytest.raises(ValueError, match="average of weight is missing"):
        ema.load_state_dict({})
    with pytest.raises(ValueError, match=r"average of weight has shape \[3\], the model has"):
        ema.load_state_dict({"weight": torch.ones(3)})
