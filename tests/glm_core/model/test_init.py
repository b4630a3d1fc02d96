"""Fresh weights."""

import math

import pytest
import torch

from glm_core.model import Transformer
from glm_core.testing import TINY_FAMILIES, randomize, tiny_config

# Three layers of 6 heads x 16: large enough for a standard deviation to be read off.
SHAPE = {
    "num_layers": 3,
    "num_heads": 6,
    "num_kv_heads": 6,
    "head_dim": 16,
    "hidden_size": 96,
    "ffn_hidden_size": 128,
    "vocab_size": 500,
    "max_position_embeddings": 199,
    "init_std": 0.02,
}


def fresh(family, seed=0, **changes):
    rotary = {"rotary_dim": rotary_dim(family)}
    model = Transformer(tiny_config(family, **{**SHAPE, **rotary, **changes}))
    model.init_weights(seed)
    return model


def spread(weight):
    return pytest.approx(weight.std().item(), rel=0.06)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_weights_depend_on_the_seed_alone(family):
    first = fresh(family, seed=1).state_dict()
    torch.randn(7)
    reused = Transformer(tiny_config(family, **{**SHAPE, "rotary_dim": rotary_dim(family)}))
    randomize(reused, seed=9)
    reused.init_weights(seed=1)
    second, third = reused.state_dict(), fresh(family, seed=2).state_dict()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["word_embeddings.weight"], third["word_embeddings.weight"])


def rotary_dim(family):
    return 16 if tiny_config(family).is_rotary else 0


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_biases_are_zero_and_norms_are_one(family):
    for name, parameter in fresh(family).named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.dim() == 1:
            assert (parameter == 1).all(), name


@pytest.mark.parametrize("family", ["glm-base", "llama-7b"])
def test_projections_into_the_residual_stream_are_smaller_when_the_stack_is_deep(family):
    model = fresh(family)
    assert spread(model.word_embeddings.weight) == 0.02
    for layer in model.layers:
        assert spread(layer.attention.query_key_value.weight) == 0.02
        assert spread(layer.mlp.dense_h_to_4h.weight) == 0.02
        assert spread(layer.attention.dense.weight) == 0.02 / math.sqrt(6)
        assert spread(layer.mlp.dense_4h_to_h.weight) == 0.02 / math.sqrt(6)
    tables = [model.positions] if family == "glm-base" else []
    for table in tables:
        assert spread(table.position_embeddings.weight) == 0.02
        assert spread(table.block_position_embeddings.weight) == 0.02


def xavier(weight):
    return math.sqrt(2.0 / sum(weight.shape))


@pytest.mark.parametrize("layout", ["concatenated", "interleaved"])
@pytest.mark.parametrize("kv_heads", [6, 2])
def test_deepnorm_scales_the_value_rows_alone(layout, kv_heads):
    model = fresh("glm-130b", qkv_layout=layout, num_kv_heads=kv_heads)
    gain = 1 / math.sqrt(2 * 3)
    # Which rows are values, counted by hand: 16 rows a head.
    if layout == "concatenated":
        values = range((6 + kv_heads) * 16, (6 + 2 * kv_heads) * 16)
    else:
        group = 6 // kv_heads + 2
        values = [(group * g + group - 1) * 16 + row for g in range(kv_heads) for row in range(16)]
    for layer in model.layers:
        weight = layer.attention.query_key_value.weight
        is_value = torch.zeros(len(weight), dtype=torch.bool)
        is_value[list(values)] = True
        assert spread(weight[is_value]) == gain * xavier(weight)
        assert spread(weight[~is_value]) == xavier(weight)


def test_deepnorm_scales_output_and_feed_forward():
    model = fresh("glm-130b")
    gain = 1 / math.sqrt(2 * 3)
    assert spread(model.word_embeddings.weight) == 0.02
    for layer in model.layers:
        for linear in (layer.attention.dense, layer.mlp.dense_h_to_4h, layer.mlp.dense_4h_to_h):
            assert spread(linear.weight) == gain * xavier(linear.weight)
