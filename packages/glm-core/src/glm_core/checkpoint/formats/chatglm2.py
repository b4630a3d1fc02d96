"""ChatGLM2-6B, ChatGLM3-6B, CodeGeeX2-6B and GLM-4-9B as first released: one layout for all.

Source: reference shapes and names of THUDM/chatglm2-6b, chatglm3-6b, codegeex2-6b, glm-4-9b.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, require_value, same_tensor, value_of
from glm_core.checkpoint.keymap import (
    Computed,
    Entry,
    Ignored,
    Row,
    Split,
    Table,
    gate_parts,
    qkv_parts,
)
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset

_LAYER, _OURS = "transformer.encoder.layers.{layer}", "layers.{layer}"
_EMBEDDING = "transformer.embedding.word_embeddings.weight"
_HEAD, _OLD_HEAD = "transformer.output_layer.weight", "lm_head.weight"


def _matches(folder: WeightFolder) -> bool:
    return folder.has(_EMBEDDING)


def _read_config(folder: WeightFolder) -> TransformerConfig:
    c = folder.config
    require_value(c, "rmsnorm", True)
    require_value(c, "post_layer_norm", True)
    require_value(c, "apply_residual_connection_post_layernorm", False)
    require_value(c, "original_rope", True)
    _check_old_head(folder)
    heads, hidden = value_of(c, "num_attention_heads", int), value_of(c, "hidden_size", int)
    head_dim = value_of(c, "kv_channels", int, hidden // heads)
    groups = value_of(c, "multi_query_group_num", int, heads)
    bias = value_of(c, "add_bias_linear", bool, False)
    ratio, divides = value_of(c, "rope_ratio", float, 1.0), _divides_positions(folder)
    return replace(
        preset("chatglm2-6b"),
        vocab_size=value_of(c, "padded_vocab_size", int),
        hidden_size=hidden,
        num_layers=value_of(c, "num_layers", int),
        num_heads=heads,
        num_kv_heads=groups if value_of(c, "multi_query_attention", bool, False) else heads,
        head_dim=head_dim,
        ffn_hidden_size=value_of(c, "ffn_hidden_size", int),
        max_position_embeddings=value_of(c, "seq_length", int),
        norm_eps=value_of(c, "layernorm_epsilon", float),
        rope_theta=10000.0 if divides else 10000.0 * ratio,
        rope_position_scale=ratio if divides else 1.0,
        rotary_dim=head_dim // 2,
        qkv_bias=value_of(c, "add_qkv_bias", bool, False) or bias,
        dense_bias=bias,
        mlp_bias=bias,
        tie_embeddings=value_of(c, "tie_word_embeddings", bool, False),
    )


def _check_old_head(folder: WeightFolder) -> None:
    """The first code of ChatGLM2 had two names for the head, and models saved with it have both.

    Raises:
        CheckpointError: they name different tensors.
    """
    if folder.has(_OLD_HEAD) and folder.has(_HEAD) and not same_tensor(folder, _OLD_HEAD, _HEAD):
        raise CheckpointError(
            f"{_OLD_HEAD} is not {_HEAD}, of which it should be a copy: delete the one that was "
            "not trained"
        )


def _divides_positions(folder: WeightFolder) -> bool:
    """Whether rope_ratio divides the positions, as in ChatGLM2-6B-32k alone.

    config.json tells by the model's name; a fine-tuned model that has another name, by the code
    that lies beside it.
    """
    if "chatglm2" in str(folder.config.get("_name_or_path", "")).lower():
        return True
    code = folder.path / "modeling_chatglm.py"
    return code.is_file() and "/ self.rope_ratio" in code.read_text("utf-8", "replace")


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    ratio = config.rope_theta / 10000.0 * config.rope_position_scale
    name = {"_name_or_path": "THUDM/chatglm2-6b-32k"} if config.rope_position_scale != 1 else {}
    return name | {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "add_bias_linear": config.dense_bias,
        "add_qkv_bias": config.qkv_bias,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "attention_softmax_in_fp32": True,
        "ffn_hidden_size": config.ffn_hidden_size,
        "hidden_size": config.hidden_size,
        "kv_channels": config.head_dim,
        "layernorm_epsilon": config.norm_eps,
        "multi_query_attention": config.num_kv_heads < config.num_heads,
        "multi_query_group_num": config.num_kv_heads,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "original_rope": True,
        "padded_vocab_size": config.vocab_size,
        "post_layer_norm": True,
        "rmsnorm": True,
        "rope_ratio": int(ratio) if ratio.is_integer() else ratio,
        "seq_length": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _inverse_frequencies(config: TransformerConfig, dtype: torch.dtype) -> Tensor:
    """The buffer `inv_freq`, which released files store and no code reads back."""
    dims = torch.arange(0, config.rotary_dim, 2).to(dtype) / config.rotary_dim
    return 1.0 / (10000.0**dims)


def _table(config: TransformerConfig) -> Table:
    table: Table = [
        Entry("word_embeddings.weight", _EMBEDDING),
        Computed("transformer.rotary_pos_emb.inv_freq", _inverse_frequencies),
        Ignored(r"transformer\.prefix_encoder\..*"),  # see tune/prefix_file.py
        Ignored(re.escape(_OLD_HEAD)),
        Entry(f"{_OURS}.input_norm.weight", f"{_LAYER}.input_layernorm.weight"),
        Entry(f"{_OURS}.post_attention_norm.weight", f"{_LAYER}.post_attention_layernorm.weight"),
        *_linear("attention.query_key_value", config.qkv_bias, qkv_parts),
        *_linear("attention.dense", config.dense_bias),
        *_linear("mlp.dense_h_to_4h", config.mlp_bias, gate_parts),
        *_linear("mlp.dense_4h_to_h", config.mlp_bias),
        Entry("final_norm.weight", "transformer.encoder.final_layernorm.weight"),
    ]
    if not config.tie_embeddings:
        table.append(Entry("output_layer.weight", _HEAD))
    return table


def _linear(name: str, bias: bool, parts: Any = None) -> list[Row]:
    theirs = name.replace("attention.", "self_attention.")
    kinds = ("weight", "bias") if bias else ("weight",)
    return [
        Entry(f"{_OURS}.{name}.{kind}", f"{_LAYER}.{theirs}.{kind}", Split.whole, parts)
        for kind in kinds
    ]


CHATGLM2 = Format(
    name="chatglm2",
    holds="ChatGLM2-6B, ChatGLM3-6B, CodeGeeX2-6B, CodeGeeX4-9B, GLM-4-9B (original)",
    matches=_matches,
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
)
