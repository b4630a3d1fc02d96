from __future__ import annotations

import copy
import json

import pytest
import torch

from glm_core.attention.spec import Causal
from glm_core.model.config import GenerationLayout, Position, TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.tune.lora import load_lora, lora_rows
from glm_core.tune.lora_training import LoraConfig, add_lora, merge_lora, save_lora

CONFIG = LoraConfig(rank=3, alpha=6)


@pytest.fixture
def model():
    config = TransformerConfig(
        vocab_size=60,
        hidden_size=24,
        num_layers=2,
        num_heads=3,
        max_position_embeddings=32,
        position=Position.rope,
        generation_layout=GenerationLayout.causal,
    )
    made = Transformer(config)
    made.init_weights(1)
    return made


def ids():
    return torch.randint(0, 60, (2, 11), generator=torch.Generator().manual_seed(0))


def hidden(model):
    positions = torch.zeros(2, 2, 11, dtype=torch.long)
    positions[:, 0] = torch.arange(11)
    return model(ids(), positions, Causal())


def trained(model):
    """Three steps of gradient descent on something."""
    add_lora(model, CONFIG, seed=0)
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (hidden(model) ** 2).mean().backward()
        optimizer.step()
    return model


def test_nothing_changes_when_the_matrices_are_new(model):
    before = hidden(model)
    add_lora(model, CONFIG, seed=0)
    assert torch.equal(hidden(model), before)


def test_only_the_matrices_move_when_trained(model):
    frozen = copy.deepcopy(model.state_dict())
    state = trained(model).state_dict()
    assert all(torch.equal(state[name], value) for name, value in frozen.items())
    added = {name for name in state if name not in frozen}
    assert len(added) == 2 * 4 * 2  # two matrices, four layers, two blocks
    assert {name for name, one in model.named_parameters() if one.requires_grad} == added
    assert any(state[name].abs().max() > 0 for name in added if name.endswith("lora_B"))


def test_result_is_that_of_numpy_when_computed_by_hand(model):
    layer = trained(model).layers[0].mlp.dense_h_to_4h
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    w, bias, a, b = (
        one.detach().double().numpy()
        for one in (layer.weight, layer.bias, layer.lora_A, layer.lora_B)
    )
    expected = x.double().numpy() @ w.T + bias + 2.0 * (x.double().numpy() @ a.T) @ b.T
    # seen: 4.2e-8
    torch.testing.assert_close(layer(x).double(), torch.from_numpy(expected), atol=2e-6, rtol=0)


def test_merged_model_computes_the_same_when_the_matrices_are_gone(model):
    expected = hidden(trained(model)).detach()
    names = set(Transformer(model.config).state_dict())
    merge_lora(model, CONFIG)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(hidden(model), expected, atol=1e-5, rtol=0)  # seen: 4.8e-7


def test_engine_reads_what_was_trained_when_saved(model, tmp_path):
    plain = copy.deepcopy(model)
    expected = hidden(trained(model)).detach()
    save_lora(model, tmp_path, CONFIG)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["r"] == 3 and "query_key_value" in settings["target_modules"]
    adapter = load_lora(plain, tmp_path)
    with torch.no_grad(), lora_rows(plain, [adapter, adapter]):
        found = hidden(plain)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # seen: 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": -1}, "lora.rank is -1: it must be at least 0"),
        ({"alpha": 0.0}, "lora.alpha is 0.0: it must be above 0"),
    ],
)
def test_error_names_the_setting_when_it_is_out_of_bounds(settings, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**settings)


def test_error_says_what_to_do_when_nothing_would_be_added(model):
    with pytest.raises(ValueError, match="lora.rank is 0"):
        add_lora(model, LoraConfig(), seed=0)
