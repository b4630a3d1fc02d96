"""GLM-4-9B and GLM-4-0414 in the layout of transformers (`glm` and `glm4`).

Source: transformers, models/glm and models/glm4 (names and shapes).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, require_value, value_of
from glm_core.checkpoint.formats.llama import attention_table, linears, rope_json, rope_of
from glm_core.checkpoint.keymap import Entry, Table, gate_parts
from glm_core.model.config import Residual, TransformerConfig
from glm_core.model.presets import preset

_LAYER = "model.layers.{layer}"
_SANDWICH = f"{_LAYER}.post_mlp_layernorm.weight"


def _is_sandwich(folder: WeightFolder) -> bool:
    return folder.has(_SANDWICH.replace("{layer}", "0"))


def _matches(folder: WeightFolder) -> bool:
    return folder.has("model.layers.0.mlp.gate_up_proj.weight")


def _read_config(folder: WeightFolder, member: str) -> TransformerConfig:
    c = folder.config
    require_value(c, "hidden_act", "silu")
    heads, hidden_size = value_of(c, "num_attention_heads", int), value_of(c, "hidden_size", int)
    head_dim = value_of(c, "head_dim", int, hidden_size // heads)
    rope = c.get("rope_parameters") or c
    theta, scale = rope_of(c)
    partial = value_of(rope, "partial_rotary_factor", float, 0.5)
    return replace(
        preset(member),
        vocab_size=value_of(c, "vocab_size", int),
        hidden_size=hidden_size,
        num_layers=value_of(c, "num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=value_of(c, "num_key_value_heads", int, heads),
        head_dim=head_dim,
        rotary_dim=int(head_dim * partial),
        ffn_hidden_size=value_of(c, "intermediate_size", int),
        max_position_embeddings=value_of(c, "max_position_embeddings", int),
        norm_eps=value_of(c, "rms_norm_eps", float),
        rope_theta=theta,
        rope_position_scale=scale,
        qkv_bias=value_of(c, "attention_bias", bool, True),
        tie_embeddings=value_of(c, "tie_word_embeddings", bool, False),
    )


def _write_config(config: TransformerConfig, name: str) -> dict[str, Any]:
    partial = config.rotary_dim / config.head_dim
    rope = rope_json(config)
    rope["rope_parameters"]["partial_rotary_factor"] = partial
    return {
        "model_type": name,
        "architectures": [f"{name.capitalize()}ForCausalLM"],
        "attention_bias": config.qkv_bias,
        # not what transformers takes for a config that says nothing: ids of GLM-4's vocabulary
        "eos_token_id": None,
        "pad_token_id": None,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_hidden_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "partial_rotary_factor": partial,
        "rms_norm_eps": config.norm_eps,
        **rope,
        "tie_word_embeddings": config.tie_embeddings,
        "vocab_size": config.vocab_size,
    }


def _table(config: TransformerConfig) -> Table:
    table = attention_table(config)
    gate_up = f"{_LAYER}.mlp.gate_up_proj"
    table += linears("mlp.dense_h_to_4h", gate_up, config.mlp_bias, gate_parts)
    if config.residual == Residual.sandwich:
        table += [
            Entry("layers.{layer}.mlp_out_norm.weight", _SANDWICH),
            Entry(
                "layers.{layer}.attention_out_norm.weight",
                f"{_LAYER}.post_self_attn_layernorm.weight",
            ),
        ]
    return table


GLM4_HF = Format(
    name="glm4-hf",
    holds="GLM-4-9B in transformers' layout (model_type glm)",
    matches=lambda folder: _matches(folder) and not _is_sandwich(folder),
    read_config=lambda folder: _read_config(folder, "glm-4-9b"),
    write_config=lambda config: _write_config(config, "glm"),
    table=_table,
)

GLM4_0414_HF = Format(
    name="glm4-0414-hf",
    holds="GLM-4-9B-0414 and GLM-4-32B-0414 (transformers, model_type glm4)",
    matches=lambda folder: _matches(folder) and _is_sandwich(folder),
    read_config=lambda folder: _read_config(folder, "glm-4-9b-0414"),
    write_config=lambda config: _write_config(config, "glm4"),
    table=_table,
)
