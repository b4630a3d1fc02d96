"""The tiny models of every family."""

import pytest
import torch

from glm_core.model.presets import PRESETS
from glm_core.testing import TINY_FAMILIES, tiny_config, tiny_model


@pytest.mark.parametrize("family", PRESETS)
def test_every_preset_has_a_tiny_form(family):
    config = tiny_config(family)
    assert config.num_layers == 2
    assert config.hidden_size == config.num_heads * config.head_dim == 32


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_tiny_model_keeps_the_algebra_and_runs(family):
    model = tiny_model(family)
    hidden = model(torch.randint(0, 67, (2, 5)))
    assert hidden.shape == (2, 5, 32)
    assert model.logits(hidden).isfinite().all()
    assert not model.training


def test_changes_win_over_the_tiny_size():
    config = tiny_config("glm-130b", num_layers=3, hidden_size=24, num_heads=3)
    assert (config.num_layers, config.hidden_size) == (3, 24)
    assert config.residual_scale == pytest.approx(6**0.5)


def test_no_parameter_is_left_at_its_neutral_value():
    for name, parameter in tiny_model("glm-base").named_parameters():
        assert parameter.std() > 0.05, name


def test_models_are_equal_when_the_seed_is():
    first, second, third = (tiny_model("llama-7b", seed=seed) for seed in (3, 3, 4))
    weights = [model.word_embeddings.weight for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
