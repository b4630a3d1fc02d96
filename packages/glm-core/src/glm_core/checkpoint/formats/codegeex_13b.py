"""CodeGeeX-13B in Megatron's nested state dict, one file or one per tensor-parallel rank.

Two descendants of that layout are tables over the same rows: with fused projections, which
FasterTransformer takes, and with columns for rows, which Paddle takes.

Sources: THUDM/CodeGeeX, convert_ckpt_parallel.py and merge_ckpt_parallel.py (names and splits),
get_ckpt_qkv.py (fused projections), pt_to_pdparams.py (columns).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, value_of
from glm_core.checkpoint.formats.rows import linear, norm
from glm_core.checkpoint.keymap import Entry, Row, Split, Table, qkv_parts
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset

BLOCK, TOP = "layers.{layer}", "top_query.block"
"""What our names of a block, and of the top-query layer, begin with."""
_HEAD_DIM = 128
"""Of the one released model; its files do not say it."""
_PREFIX = "module.language_model."
_EMBEDDING = "embedding.word_embeddings.weight"
_POSITIONS = "embedding.position_embeddings.weight"
_TOP_TABLE = "topQueryEmbedding.top_query_embeddings.weight"
_BLOCK, _TOP = "transformer.layers.{layer}", "transformer.topQueryLayer"
_UP = _PREFIX + "transformer.layers.0.mlp.dense_h_to_4h"
_FUSED = _PREFIX + "transformer.layers.0.attention.query_key_value.weight"
_LINEAR_WEIGHTS = tuple(
    f".{name}.weight" for name in ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
)


def config_of(
    folder: WeightFolder,
    embedding: tuple[int, ...],
    ffn_hidden_size: int,
    max_position_embeddings: int,
    layers: str,
) -> TransformerConfig:
    """The model's config from shapes, and from config.json where there is one.

    Args:
        embedding: shape of the whole word embeddings.
        ffn_hidden_size: of all ranks together.
        layers: pattern of a block's tensor, its number in a group.
    """
    c = folder.config
    heads = value_of(c, "num_attention_heads", int, max(1, embedding[1] // _HEAD_DIM))
    return replace(
        preset("codegeex-13b"),
        vocab_size=value_of(c, "vocab_size", int, embedding[0]),
        hidden_size=embedding[1],
        num_layers=folder.count_layers(layers),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=0,  # hidden_size / num_heads
        ffn_hidden_size=ffn_hidden_size,
        max_position_embeddings=max_position_embeddings,
    )


def write_config(config: TransformerConfig) -> dict[str, Any]:
    """config.json; the original has none."""
    return {
        "model_type": "codegeex",
        "hidden_size": config.hidden_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "vocab_size": config.vocab_size,
    }


def qkv(ours: str, theirs: str, *names: str, held: tuple[int, ...] = ()) -> list[Entry]:
    """Queries, keys and values, from top to bottom under the given names.

    Args:
        held: how many of the three each name holds; one each by default.
    """
    return [
        Entry(
            f"{ours}.attention.query_key_value.{kind}",
            tuple(f"{theirs}.attention.{name}.{kind}" for name in names),
            Split.rows,
            qkv_parts,
            held,
        )
        for kind in ("weight", "bias")
    ]


def turned(row: Row) -> Row:
    """The row as it is, but the weight of a linear layer [in, out]."""
    if isinstance(row, Entry) and row.ours.endswith(_LINEAR_WEIGHTS):
        return replace(row, transposed=True)
    return row


def _read_config(folder: WeightFolder) -> TransformerConfig:
    ranks = len(folder.ranks)
    rows, hidden_size = folder.shape(_PREFIX + _EMBEDDING)
    return config_of(
        folder,
        (rows * ranks, hidden_size),
        folder.shape(f"{_UP}.bias")[0] * ranks,
        folder.shape(_PREFIX + _POSITIONS)[0],
        r".*\.transformer\.layers\.(\d+)\.",
    )


def _around_blocks(config: TransformerConfig) -> Table:
    return [
        Entry("word_embeddings.weight", _EMBEDDING, Split.rows),
        Entry("positions.position_embeddings.weight", _POSITIONS),
        Entry("top_query.embedding.weight", _TOP_TABLE, Split.rows),
        *norm("final_norm", "transformer.final_layernorm", config),
    ]


def _block(config: TransformerConfig, ours: str, theirs: str) -> Table:
    """A block but for its queries, keys and values."""
    return [
        *norm(f"{ours}.input_norm", f"{theirs}.input_layernorm", config),
        *linear(f"{ours}.attention.dense", f"{theirs}.attention.dense", True, Split.columns),
        *norm(f"{ours}.post_attention_norm", f"{theirs}.post_attention_layernorm", config),
        *linear(f"{ours}.mlp.dense_h_to_4h", f"{theirs}.mlp.dense_h_to_4h", True, Split.rows),
        *linear(f"{ours}.mlp.dense_4h_to_h", f"{theirs}.mlp.dense_4h_to_h", True, Split.columns),
    ]


def _table(config: TransformerConfig) -> Table:
    return [
        *_around_blocks(config),
        *_block(config, BLOCK, _BLOCK),
        *qkv(BLOCK, _BLOCK, "query", "key", "value"),
        *_block(config, TOP, _TOP),
        *qkv(TOP, _TOP, "query", "key", "value"),
    ]


def _fused_table(config: TransformerConfig) -> Table:
    """Queries of the top-query layer have an input of their own: its keys and values are fused."""
    return [
        *_around_blocks(config),
        *_block(config, BLOCK, _BLOCK),
        *qkv(BLOCK, _BLOCK, "query_key_value"),
        *_block(config, TOP, _TOP),
        *qkv(TOP, _TOP, "query", "key_value", held=(1, 2)),
    ]


def _has_columns(folder: WeightFolder) -> bool:
    """Whether linear layers are [in, out]: their rows are then not those of the bias."""
    weight, bias = f"{_UP}.weight", f"{_UP}.bias"
    if not (folder.has(weight) and folder.has(bias)):
        return False
    return folder.shape(weight)[0] != folder.shape(bias)[0]


CODEGEEX_13B = Format(
    name="codegeex-13b",
    holds="CodeGeeX-13B (Megatron)",
    matches=lambda folder: (
        folder.has(_PREFIX + _TOP_TABLE) and not folder.has(_FUSED) and not _has_columns(folder)
    ),
    read_config=_read_config,
    write_config=write_config,
    table=_table,
    is_tensor_parallel=True,
    prefix=_PREFIX,
)
CODEGEEX_13B_FUSED = replace(
    CODEGEEX_13B,
    name="codegeex-13b-fused",
    holds="CodeGeeX-13B with fused projections (FasterTransformer)",
    matches=lambda folder: folder.has(_PREFIX + _TOP_TABLE) and folder.has(_FUSED),
    table=_fused_table,
)
CODEGEEX_13B_PADDLE = replace(
    CODEGEEX_13B,
    name="codegeex-13b-paddle",
    holds="CodeGeeX-13B with linear layers [in, out] (Paddle)",
    matches=lambda folder: folder.has(_PREFIX + _TOP_TABLE) and _has_columns(folder),
    table=lambda config: [turned(row) for row in _table(config)],
    is_tensor_parallel=False,
)
