"""CodeGeeX-13B: Megatron, nested state dict, one file or one per tensor-parallel rank.

Source: THUDM/CodeGeeX, convert_ckpt_parallel.py and merge_ckpt_parallel.py (names and splits).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, value_of
from glm_core.checkpoint.formats.rows import linear, norm
from glm_core.checkpoint.keymap import Entry, Split, Table, qkv_parts
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset

_HEAD_DIM = 128
"""Of the one released model; its files do not say it."""
_PREFIX = "module.language_model."
_EMBEDDING = "embedding.word_embeddings.weight"
_POSITIONS = "embedding.position_embeddings.weight"
_TOP_TABLE = "topQueryEmbedding.top_query_embeddings.weight"


def _read_config(folder: WeightFolder) -> TransformerConfig:
    c, ranks = folder.config, len(folder.ranks)
    rows, hidden_size = folder.shape(_PREFIX + _EMBEDDING)
    first_rows = folder.shape(_PREFIX + "transformer.layers.0.mlp.dense_h_to_4h.weight")[0]
    heads = value_of(c, "num_attention_heads", int, max(1, hidden_size // _HEAD_DIM))
    return replace(
        preset("codegeex-13b"),
        vocab_size=value_of(c, "vocab_size", int, rows * ranks),
        hidden_size=hidden_size,
        num_layers=folder.count_layers(r".*\.transformer\.layers\.(\d+)\."),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=0,  # hidden_size / num_heads
        ffn_hidden_size=first_rows * ranks,
        max_position_embeddings=folder.shape(_PREFIX + _POSITIONS)[0],
    )


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    return {
        "model_type": "codegeex",
        "hidden_size": config.hidden_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "vocab_size": config.vocab_size,
    }


def _block(config: TransformerConfig, ours: str, theirs: str) -> Table:
    table: Table = [
        *norm(f"{ours}.input_norm", f"{theirs}.input_layernorm", config),
        *linear(f"{ours}.attention.dense", f"{theirs}.attention.dense", True, Split.columns),
        *norm(f"{ours}.post_attention_norm", f"{theirs}.post_attention_layernorm", config),
        *linear(f"{ours}.mlp.dense_h_to_4h", f"{theirs}.mlp.dense_h_to_4h", True, Split.rows),
        *linear(f"{ours}.mlp.dense_4h_to_h", f"{theirs}.mlp.dense_4h_to_h", True, Split.columns),
    ]
    for kind in ("weight", "bias"):
        names = tuple(f"{theirs}.attention.{part}.{kind}" for part in ("query", "key", "value"))
        fused = f"{ours}.attention.query_key_value.{kind}"
        table.append(Entry(fused, names, Split.rows, qkv_parts))
    return table


def _table(config: TransformerConfig) -> Table:
    return [
        Entry("word_embeddings.weight", _EMBEDDING, Split.rows),
        Entry("positions.position_embeddings.weight", _POSITIONS),
        Entry("top_query.embedding.weight", _TOP_TABLE, Split.rows),
        *_block(config, "layers.{layer}", "transformer.layers.{layer}"),
        *_block(config, "top_query.block", "transformer.topQueryLayer"),
        *norm("final_norm", "transformer.final_layernorm", config),
    ]


CODEGEEX_13B = Format(
    name="codegeex-13b",
    holds="CodeGeeX-13B (Megatron)",
    matches=lambda folder: folder.has(_PREFIX + _TOP_TABLE),
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
    is_tensor_parallel=True,
    prefix=_PREFIX,
)
