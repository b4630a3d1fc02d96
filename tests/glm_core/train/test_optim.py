from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from glm_core.train.optim import OptimConfig, build_optimizer, decay_groups


def names(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    wanted = set(map(id, parameters))
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def test_only_matrices_decay_when_grouped(tiny: ModuleType) -> None:
    model = tiny.TinyModel(1)
    decaying, others = decay_groups(model, decay_embeddings=False)
    assert names(model, decaying) == {"layers.0.linear.weight", "head.weight"}
    assert "embedding.weight" in names(model, others)
    decaying, _ = decay_groups(model, decay_embeddings=True)
    assert "embedding.weight" in names(model, decaying)


def test_tied_head_counts_as_embedding_when_grouped(tiny: ModuleType) -> None:
    model = tiny.TinyModel(1)
    model.head.weight = model.embedding.weight
    decaying, others = decay_groups(model, decay_embeddings=False)
    assert names(model, decaying) == {"layers.0.linear.weight"}
    assert len(decaying) + len(others) == len(list(model.parameters()))


def test_settings_reach_adamw_when_built(tiny: ModuleType) -> None:
    config = OptimConfig(lr=0.5, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3)
    optimizer = build_optimizer(tiny.TinyModel(), config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.9), 1e-6)
    assert group["fused"]


def test_error_is_clear_when_nothing_is_trainable() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(frozen, OptimConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "optim.lr is 0.0; it must be above 0"),
        ({"lr": math.inf}, "optim.lr is inf; it must be above 0"),
        ({"weight_decay": math.nan}, "optim.weight_decay is nan; it must not be negative"),
        ({"beta2": 1.0}, r"optim.beta2 is 1.0; it must be in \[0, 1\)"),
        ({"min_lr_ratio": 2.0}, "optim.min_lr_ratio is 2.0; it must be between 0 and 1"),
        ({"warmup_steps": -1}, "optim.warmup_steps is -1; it must not be negative"),
        ({"schedule": "linear"}, "'linear' is not a valid Schedule"),
    ],
)
def test_error_names_setting_when_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**settings)


def test_weights_follow_textbook_adamw_when_stepped() -> None:
    """One step of arXiv 1711.05101, algorithm 2, in float64."""
    layer = nn.Linear(3, 2, bias=False)
    config = OptimConfig(lr=0.1, weight_decay=0.2)
    start, gradient = layer.weight.detach().double(), torch.randn(2, 3)
    layer.weight.grad = gradient.clone()
    build_optimizer(layer, config).step()
    moment, square = 0.1 * gradient.double(), 0.05 * gradient.double() ** 2
    step = (moment / 0.1) / ((square / 0.05).sqrt() + 1e-8)
    expected = start - 0.1 * (step + 0.2 * start)
    torch.testing.assert_close(layer.weight.detach().double(), expected, atol=1e-6, rtol=0)
