"""LLaMA and Vicuna in the layout of Hugging Face.

Source: transformers, models/llama (names and shapes).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, require_value, value_of
from glm_core.checkpoint.keymap import (
    Entry,
    Ignored,
    Parts,
    Row,
    Split,
    Table,
    gate_parts,
    qkv_parts,
)
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset

_ATTENTION, _MLP = "model.layers.{layer}.self_attn", "model.layers.{layer}.mlp"
_QKV = tuple(f"{_ATTENTION}.{name}_proj" for name in "qkv")


def rope_of(config: dict[str, Any]) -> tuple[float, float]:
    """Base of RoPE and what positions are divided by.

    From config.json as transformers writes it before and since version 5.

    Raises:
        CheckpointError: positions are scaled in another way than by a factor.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear"):
        raise CheckpointError(
            f"config.json has rope_type={kind!r}: only 'default' and 'linear' are supported"
        )
    theta = value_of(rope, "rope_theta", float, value_of(config, "rope_theta", float, 10000.0))
    scale = value_of(rope, "factor", float) if kind == "linear" else 1.0
    return theta, scale


def rope_json(config: TransformerConfig) -> dict[str, Any]:
    """What `rope_of` reads, for both."""
    scale = config.rope_position_scale
    plain = scale == 1.0
    rope = {"rope_type": "default"} if plain else {"rope_type": "linear", "factor": scale}
    before = {} if plain else {"rope_scaling": rope}
    theta = {"rope_theta": config.rope_theta}
    return before | theta | {"rope_parameters": rope | theta}


def _matches(folder: WeightFolder) -> bool:
    return folder.has("model.layers.0.mlp.gate_proj.weight")


def _read_config(folder: WeightFolder) -> TransformerConfig:
    c = folder.config
    require_value(c, "hidden_act", "silu")
    heads, hidden_size = value_of(c, "num_attention_heads", int), value_of(c, "hidden_size", int)
    bias, (theta, scale) = value_of(c, "attention_bias", bool, False), rope_of(c)
    return replace(
        preset("llama-7b"),
        vocab_size=value_of(c, "vocab_size", int),
        hidden_size=hidden_size,
        num_layers=value_of(c, "num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=value_of(c, "num_key_value_heads", int, heads),
        head_dim=value_of(c, "head_dim", int, hidden_size // heads),
        rotary_dim=0,  # all of it
        ffn_hidden_size=value_of(c, "intermediate_size", int),
        max_position_embeddings=value_of(c, "max_position_embeddings", int),
        norm_eps=value_of(c, "rms_norm_eps", float),
        rope_theta=theta,
        rope_position_scale=scale,
        qkv_bias=bias,
        dense_bias=bias,
        mlp_bias=value_of(c, "mlp_bias", bool, False),
        tie_embeddings=value_of(c, "tie_word_embeddings", bool, False),
    )


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": config.qkv_bias,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_hidden_size,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": config.mlp_bias,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.norm_eps,
        **rope_json(config),
        "tie_word_embeddings": config.tie_embeddings,
        "vocab_size": config.vocab_size,
    }


def linears(
    ours: str, theirs: str | tuple[str, ...], bias: bool, parts: Parts | None = None
) -> list[Row]:
    """Weight and bias of a linear layer of ours that theirs may keep in parts."""

    def named(kind: str) -> str | tuple[str, ...]:
        if isinstance(theirs, str):
            return f"{theirs}.{kind}"
        return tuple(f"{name}.{kind}" for name in theirs)

    kinds = ("weight", "bias") if bias else ("weight",)
    return [Entry(f"layers.{{layer}}.{ours}.{k}", named(k), Split.whole, parts) for k in kinds]


def attention_table(config: TransformerConfig) -> Table:
    """Embedding, attention, final norm and head, which GLM-4 in transformers names like LLaMA."""
    table: Table = [
        Entry("word_embeddings.weight", "model.embed_tokens.weight"),
        *linears("attention.query_key_value", _QKV, config.qkv_bias, qkv_parts),
        *linears("attention.dense", f"{_ATTENTION}.o_proj", config.dense_bias),
        *linears("mlp.dense_4h_to_h", f"{_MLP}.down_proj", config.mlp_bias),
        Entry("layers.{layer}.input_norm.weight", "model.layers.{layer}.input_layernorm.weight"),
        Entry(
            "layers.{layer}.post_attention_norm.weight",
            "model.layers.{layer}.post_attention_layernorm.weight",
        ),
        Entry("final_norm.weight", "model.norm.weight"),
        Ignored(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
    ]
    if config.tie_embeddings:
        table.append(Ignored(r"lm_head\.weight"))
    else:
        table.append(Entry("output_layer.weight", "lm_head.weight"))
    return table


def _table(config: TransformerConfig) -> Table:
    gate_and_up = (f"{_MLP}.gate_proj", f"{_MLP}.up_proj")
    return [
        *attention_table(config),
        *linears("mlp.dense_h_to_4h", gate_and_up, config.mlp_bias, gate_parts),
    ]


LLAMA = Format(
    name="llama",
    holds="LLaMA, Vicuna (Hugging Face layout)",
    matches=_matches,
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
)
