"""ChatGLM-6B, first release and later ones.

Source: config.json and modeling_chatglm.py of THUDM/chatglm-6b, names and shapes only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, is_tied, require_value, value_of
from glm_core.checkpoint.formats.rows import block, norm
from glm_core.checkpoint.keymap import Computed, Copy, Entry, Ignored, Table
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset

_EMBEDDING, _HEAD = "transformer.word_embeddings.weight", "lm_head.weight"
_ROTARY = "transformer.layers.{layer}.attention.rotary_emb.inv_freq"


def _matches(folder: WeightFolder) -> bool:
    # Not GLM-130B, whose names begin with "module.", nor ChatGLM2, which has an encoder.
    return folder.has(_EMBEDDING) and folder.has(_HEAD)


def _read_config(folder: WeightFolder) -> TransformerConfig:
    c = folder.config
    require_value(c, "position_encoding_2d", True)
    hidden_size = value_of(c, "hidden_size", int)
    heads = value_of(c, "num_attention_heads", int)
    return replace(
        preset("chatglm-6b"),  # its alpha too: the block takes 28 layers whatever the config says
        vocab_size=value_of(c, "vocab_size", int),
        hidden_size=hidden_size,
        num_layers=value_of(c, "num_layers", int),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=0,  # hidden_size / num_heads
        rotary_dim=0,  # all of it
        ffn_hidden_size=value_of(c, "inner_hidden_size", int, 4 * hidden_size),
        max_position_embeddings=value_of(c, "max_sequence_length", int),
        norm_eps=value_of(c, "layernorm_epsilon", float, 1e-5),
        tie_embeddings=is_tied(folder, _HEAD, _EMBEDDING),
    )


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    return {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "hidden_size": config.hidden_size,
        "inner_hidden_size": config.ffn_hidden_size,
        "layernorm_epsilon": config.norm_eps,
        "max_sequence_length": config.max_position_embeddings,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "position_encoding_2d": True,
        "tie_word_embeddings": config.tie_embeddings,
        "vocab_size": config.vocab_size,
    }


def _inverse_frequencies(config: TransformerConfig, dtype: torch.dtype) -> Tensor:
    """The buffer `inv_freq` of a layer, in fp16 whatever the weights are; nobody reads it back."""
    half = config.head_dim // 2
    return (1.0 / (10000.0 ** (torch.arange(0, half, 2).float() / half))).half()


def _table(config: TransformerConfig) -> Table:
    head = (
        Copy(_HEAD, "word_embeddings.weight")
        if config.tie_embeddings
        else Entry("output_layer.weight", _HEAD)
    )
    return [
        Entry("word_embeddings.weight", _EMBEDDING),
        *block(config, "layers.{layer}", "transformer.layers.{layer}"),
        *norm("final_norm", "transformer.final_layernorm", config),
        head,
        Computed(_ROTARY, _inverse_frequencies),
        Ignored(r"transformer\.rotary_emb\.inv_freq"),
        Ignored(r"transformer\.prefix_encoder\..*"),  # see tune/prefix_file.py
    ]


CHATGLM = Format(
    name="chatglm",
    holds="ChatGLM-6B",
    matches=_matches,
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
)
