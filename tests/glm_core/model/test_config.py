"""The typed description of a model: what it fills in, what it refuses, how it is stored."""

import json
from dataclasses import fields

import pytest

from glm_core.model import Activation, Norm, QkvLayout, Residual, TransformerConfig
from glm_core.testing import TINY_FAMILIES, tiny_config


def build(**changes):
    values = {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
    return TransformerConfig(**{**values, "max_position_embeddings": 16, **changes})


def test_zeros_are_filled_in():
    config = build(position="rope")
    assert config.head_dim == 8
    assert config.num_kv_heads == 4
    assert config.ffn_hidden_size == 128
    assert config.rotary_dim == 8


def test_learned_positions_have_no_rotary_dim():
    assert build().rotary_dim == 0


def test_frame_follows_the_layout_when_not_given():
    assert build().prompt_frame == "cls_eos"
    assert build(generation_layout="blank_1d").prompt_frame == "cls_eos"
    assert build(generation_layout="causal").prompt_frame == "bare"


def test_blocks_are_one_more_than_layers_when_there_is_a_top_query_layer():
    assert build().num_blocks == 2
    assert build(top_query_layer=True).num_blocks == 3


def test_head_dim_may_differ_from_the_quotient_when_given():
    assert build(hidden_size=30, head_dim=8).head_dim == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "model.vocab_size is 0: it must be positive"),
        ({"hidden_size": -1}, "model.hidden_size is -1: it must be positive"),
        ({"num_layers": 0}, "model.num_layers is 0: it must be positive"),
        ({"num_heads": 0}, "model.num_heads is 0: it must be positive"),
        (
            {"max_position_embeddings": 0},
            "model.max_position_embeddings is 0: it must be positive",
        ),
        ({"num_kv_heads": -4}, "model.num_kv_heads is -4: it must not be negative"),
        ({"head_dim": -8}, "model.head_dim is -8: it must not be negative"),
        ({"ffn_hidden_size": -1}, "model.ffn_hidden_size is -1: it must not be negative"),
        ({"rotary_dim": -2}, "model.rotary_dim is -2: it must not be negative"),
        (
            {"num_heads": 5},
            r"model.num_heads is 5: it must divide hidden_size \(32\), or set head_dim",
        ),
        ({"num_kv_heads": 3}, r"model.num_kv_heads is 3: it must divide num_heads \(4\)"),
        (
            {"position": "rope", "rotary_dim": 3},
            r"model.rotary_dim is 3: it must be even and at most head_dim \(8\)",
        ),
        (
            {"position": "rope", "rotary_dim": 10},
            r"model.rotary_dim is 10: it must be even and at most head_dim \(8\)",
        ),
        (
            {"position": "rope_2d", "rotary_dim": 4},
            r"model.rotary_dim is 4: it must be head_dim \(8\), a multiple of 4, when position is",
        ),
        (
            {"position": "rope_2d", "head_dim": 6},
            r"model.rotary_dim is 6: it must be head_dim \(6\), a multiple of 4, when position is",
        ),
        (
            {"position": "rope_2d", "rope_layout": "interleaved"},
            "model.rope_layout is interleaved: it must be halves when position is rope_2d",
        ),
        (
            {"residual_scale": 2.0},
            r"model.residual_scale is 2.0: it must be 1 when residual is pre; only deepnorm",
        ),
        (
            {"residual_scale": 2.0, "residual": "sandwich"},
            r"model.residual_scale is 2.0: it must be 1 when residual is sandwich; only deepnorm",
        ),
        (
            {"attention_scale": 8.0, "layer_number_scaling": True},
            "model.attention_scale is 8.0: it must be 1 when layer_number_scaling is on; choose",
        ),
        ({"hidden_dropout": 1.0}, r"model.hidden_dropout is 1.0: it must be in \[0, 1\)"),
        ({"attention_dropout": -0.1}, r"model.attention_dropout is -0.1: it must be in \[0, 1\)"),
        ({"embedding_grad_scale": 0.0}, r"model.embedding_grad_scale is 0.0: it must be in \(0, "),
        ({"embedding_grad_scale": 1.5}, r"model.embedding_grad_scale is 1.5: it must be in \(0, "),
        ({"norm_eps": 0.0}, "model.norm_eps is 0.0: it must be positive"),
        ({"rope_position_scale": 0.0}, "model.rope_position_scale is 0.0: it must be positive"),
        (
            {"gelu_form": "quick", "activation": "geglu"},
            "model.gelu_form is quick: it must be tanh or erf when activation is geglu",
        ),
        (
            {"norm_precision": "single", "norm": "rmsnorm"},
            "model.norm_precision is single: it must be model when norm is rmsnorm",
        ),
        (
            {"prompt_frame": "bos"},
            "model.prompt_frame is bos: it does not belong to generation_layout blank: choose auto",
        ),
        (
            {"prompt_frame": "cls_eos", "generation_layout": "causal"},
            "model.prompt_frame is cls_eos: it does not belong to generation_layout causal",
        ),
        ({"rope_theta": -1.0}, "model.rope_theta is -1.0: it must be positive"),
        ({"attention_scale": 0.0}, "model.attention_scale is 0.0: it must be positive"),
        (
            {"residual_scale": 0.0, "residual": "deepnorm"},
            "model.residual_scale is 0.0: it must be positive",
        ),
        ({"init_std": 0.0}, "model.init_std is 0.0: it must be positive"),
    ],
)
def test_value_is_refused_when_it_breaks_a_rule(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("norm", "model.norm is 'none': choose one of layernorm, rmsnorm"),
        ("residual", "model.residual is 'none': choose one of pre, deepnorm, sandwich"),
        ("activation", "model.activation is 'none': choose one of gelu, geglu, swiglu"),
        ("gelu_form", "model.gelu_form is 'none': choose one of tanh, erf, quick"),
        ("gate_half", "model.gate_half is 'none': choose one of first, second"),
        ("position", "model.position is 'none': choose one of learned_2d, learned, rope, rope_2d"),
        ("rope_layout", "model.rope_layout is 'none': choose one of halves, interleaved"),
        ("qkv_layout", "model.qkv_layout is 'none': choose one of concatenated, interleaved"),
        ("generation_layout", "model.generation_layout is 'none': choose one of blank, blank_1d"),
        ("prompt_frame", "model.prompt_frame is 'none': choose one of auto, cls_eos, "),
        ("rope_precision", "model.rope_precision is 'none': choose one of full, tables, freq"),
        ("score_order", "model.score_order is 'none': choose one of fused, fill_before_coeff"),
    ],
)
def test_unknown_choice_names_the_choices(name, message):
    with pytest.raises(ValueError, match=message):
        build(**{name: "none"})
    with pytest.raises(ValueError, match=message):
        TransformerConfig.from_dict({**build().to_dict(), name: "none"})


def test_names_of_choices_become_choices():
    config = build(norm="rmsnorm", residual="sandwich", activation="swiglu")
    assert config.norm is Norm.rmsnorm
    assert config.residual is Residual.sandwich
    assert config.activation is Activation.swiglu
    assert config == build(
        norm=Norm.rmsnorm, residual=Residual.sandwich, activation=Activation.swiglu
    )


def test_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"unknown fields \['colour', 'n_layer'\]: remove them"):
        TransformerConfig.from_dict({**build().to_dict(), "n_layer": 2, "colour": "red"})


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_dict_round_trip_keeps_every_field(family):
    config = tiny_config(family)
    values = json.loads(json.dumps(config.to_dict()))
    assert set(values) == {field.name for field in fields(TransformerConfig)}
    assert all(type(value) in (str, int, float, bool) for value in values.values())
    assert TransformerConfig.from_dict(values) == config


def test_dict_may_leave_out_fields_with_a_default():
    values = {key: build().to_dict()[key] for key in ("vocab_size", "hidden_size", "num_layers")}
    config = TransformerConfig.from_dict({**values, "num_heads": 4, "max_position_embeddings": 16})
    assert config == build()
    assert config.qkv_layout is QkvLayout.concatenated


@pytest.mark.parametrize(
    ("activation", "gated"), [("gelu", False), ("geglu", True), ("swiglu", True)]
)
def test_gated_activations_double_the_projection(activation, gated):
    assert build(activation=activation).is_gated == gated
