"""Rows that many tables share: a linear layer, a norm, and the block of the GLM lineage."""

from __future__ import annotations

from glm_core.checkpoint.keymap import Entry, Parts, Split, Table, gate_parts, qkv_parts
from glm_core.model.config import Norm, QkvLayout, TransformerConfig


def linear(
    ours: str, theirs: str, bias: bool, split: Split = Split.whole, parts: Parts | None = None
) -> list[Entry]:
    """Weight and bias of a linear layer.

    With its columns split, every rank has the whole bias: it is added after the ranks' sum.
    """
    rows = [Entry(f"{ours}.weight", f"{theirs}.weight", split, parts)]
    if bias:
        split = Split.whole if split == Split.columns else split
        rows.append(Entry(f"{ours}.bias", f"{theirs}.bias", split, parts))
    return rows


def norm(ours: str, theirs: str, config: TransformerConfig) -> list[Entry]:
    """Weight and bias of a norm; RMSNorm has no bias."""
    rows = [Entry(f"{ours}.weight", f"{theirs}.weight")]
    if config.norm == Norm.layernorm:
        rows.append(Entry(f"{ours}.bias", f"{theirs}.bias"))
    return rows


def block(config: TransformerConfig, ours: str, theirs: str, attention: str = "attention") -> Table:
    """A block with the names that GLM took from Megatron, as tensor-parallel ranks split it.

    Args:
        ours: what our names of the block begin with, e.g. "layers.{layer}".
        theirs: what theirs begin with.
        attention: their name of the attention.
    """
    is_concatenated = config.qkv_layout == QkvLayout.concatenated
    fused_qkv = qkv_parts if is_concatenated else None  # per head, a rank's rows are whole heads
    fused_gate = gate_parts if config.is_gated else None
    return [
        *norm(f"{ours}.input_norm", f"{theirs}.input_layernorm", config),
        *linear(
            f"{ours}.attention.query_key_value",
            f"{theirs}.{attention}.query_key_value",
            config.qkv_bias,
            Split.rows,
            fused_qkv,
        ),
        *linear(
            f"{ours}.attention.dense",
            f"{theirs}.{attention}.dense",
            config.dense_bias,
            Split.columns,
        ),
        *norm(f"{ours}.post_attention_norm", f"{theirs}.post_attention_layernorm", config),
        *linear(
            f"{ours}.mlp.dense_h_to_4h",
            f"{theirs}.mlp.dense_h_to_4h",
            config.mlp_bias,
            Split.rows,
            fused_gate,
        ),
        *linear(
            f"{ours}.mlp.dense_4h_to_h",
            f"{theirs}.mlp.dense_4h_to_h",
            config.mlp_bias,
            Split.columns,
        ),
    ]
