"""CodeGeeX-13B as it was trained, in MindSpore: a .npy file for each tensor.

Source: THUDM/CodeGeeX, mindspore_to_megatron.py (names, and which matrices are transposed).
"""

from __future__ import annotations

from dataclasses import replace

from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format
from glm_core.checkpoint.formats.codegeex_13b import (
    BLOCK,
    TOP,
    config_of,
    qkv,
    turned,
    write_config,
)
from glm_core.checkpoint.formats.rows import linear
from glm_core.checkpoint.keymap import Entry, Split, Table
from glm_core.model.config import TransformerConfig

_PREFIX = "backbone."
_WORDS = "embedding.word_embedding.embedding_table"
_POSITIONS = "embedding.position_embedding.embedding_table"
_TOP_TABLE = "top_query_embedding.embedding_table"


def _read_config(folder: WeightFolder) -> TransformerConfig:
    return config_of(
        folder,
        folder.shape(_PREFIX + _WORDS),
        folder.shape(f"{_PREFIX}blocks.0.output.mapping.weight")[1],
        folder.shape(_PREFIX + _POSITIONS)[0],
        r"backbone\.blocks\.(\d+)\.",
    )


def _norm(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}.weight", f"{theirs}.gamma"), Entry(f"{ours}.bias", f"{theirs}.beta")]


def _block(ours: str, theirs: str) -> Table:
    """Queries, keys and values are [out, in], the other linear layers [in, out]."""
    apart = qkv(ours, theirs, "dense1", "dense2", "dense3")
    columns = [
        *linear(f"{ours}.attention.dense", f"{theirs}.attention.projection", True),
        *linear(f"{ours}.mlp.dense_h_to_4h", f"{theirs}.output.mapping", True),
        *linear(f"{ours}.mlp.dense_4h_to_h", f"{theirs}.output.projection", True),
    ]
    return [
        *_norm(f"{ours}.input_norm", f"{theirs}.layernorm1"),
        *(replace(row, split=Split.whole) for row in apart),
        *map(turned, columns),
        *_norm(f"{ours}.post_attention_norm", f"{theirs}.layernorm2"),
    ]


def _table(config: TransformerConfig) -> Table:
    return [
        Entry("word_embeddings.weight", _WORDS),
        Entry("positions.position_embeddings.weight", _POSITIONS),
        Entry("top_query.embedding.weight", _TOP_TABLE),
        *_block(BLOCK, "blocks.{layer}"),
        *_block(TOP, "top_query_layer"),
        *_norm("final_norm", "layernorm"),
    ]


CODEGEEX_13B_MINDSPORE = Format(
    name="codegeex-13b-mindspore",
    holds="CodeGeeX-13B (MindSpore, a .npy file for each tensor)",
    matches=lambda folder: folder.has(_PREFIX + _TOP_TABLE),
    read_config=_read_config,
    write_config=write_config,
    table=_table,
    prefix=_PREFIX,
)
