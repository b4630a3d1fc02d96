"""GLM: as trained (DeepSpeed, a file per tensor-parallel rank), and as exported for Hugging Face.

Sources: THUDM/GLM change_mp.py (what is split, with queries, keys and values each on their own) and
scripts/convert_glm_checkpoint_to_transformers.py; config.json of THUDM/glm-10b.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, require_value, value_of
from glm_core.checkpoint.formats.rows import block, norm
from glm_core.checkpoint.keymap import Entry, Ignored, Split, Table
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset

_HEAD_DIM = 64
"""Of every released GLM; the files of DeepSpeed do not say it."""
_EMBEDDING = "word_embeddings.weight"
_POSITIONS = "transformer.position_embeddings.weight"
_BLOCKS = "transformer.block_position_embeddings.weight"


def _is_glm(folder: WeightFolder, prefix: str) -> bool:
    return folder.has(prefix + _EMBEDDING) and folder.has(prefix + _BLOCKS)


def _read_config(folder: WeightFolder) -> TransformerConfig:
    """From the config.json of the Hugging Face export."""
    c = folder.config
    require_value(c, "relative_encoding", False)
    require_value(c, "block_position_encoding", True)
    config = _sized(
        vocab_size=value_of(c, "vocab_size", int),
        hidden_size=value_of(c, "hidden_size", int),
        num_layers=value_of(c, "num_layers", int),
        num_heads=value_of(c, "num_attention_heads", int),
        context=value_of(c, "max_sequence_length", int),
    )
    return replace(config, attention_scale=value_of(c, "attention_scale", float, 1.0))


def _read_sizes(folder: WeightFolder) -> TransformerConfig:
    """From config.json if somebody wrote one; otherwise from the shapes, with heads of 64 dims."""
    if folder.config:
        return _read_config(folder)
    rows, hidden_size = folder.shape("module." + _EMBEDDING)
    return _sized(
        vocab_size=rows * len(folder.ranks),
        hidden_size=hidden_size,
        num_layers=folder.count_layers(r"module\.transformer\.layers\.(\d+)\."),
        num_heads=max(1, hidden_size // _HEAD_DIM),
        context=folder.shape("module." + _POSITIONS)[0] - 1,
    )


def _sized(
    vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, context: int
) -> TransformerConfig:
    return replace(
        preset("glm-base"),
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=0,  # hidden_size / num_heads
        ffn_hidden_size=4 * hidden_size,
        max_position_embeddings=context,
    )


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    return {
        "model_type": "glm",
        "architectures": ["GLMModel"],
        "attention_scale": config.attention_scale,
        "block_position_encoding": True,
        "hidden_size": config.hidden_size,
        "max_sequence_length": config.max_position_embeddings,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "relative_encoding": False,
        "vocab_size": config.vocab_size,
    }


def _table(config: TransformerConfig) -> Table:
    return [
        Entry("word_embeddings.weight", _EMBEDDING, Split.rows),
        Entry("positions.position_embeddings.weight", _POSITIONS),
        Entry("positions.block_position_embeddings.weight", _BLOCKS),
        *block(config, "layers.{layer}", "transformer.layers.{layer}"),
        *norm("final_norm", "transformer.final_layernorm", config),
        Ignored(r"lm_head\.weight"),
    ]


GLM = Format(
    name="glm",
    holds="GLM base to 10B and their Chinese siblings, as trained with DeepSpeed",
    matches=lambda folder: _is_glm(folder, "module."),
    read_config=_read_sizes,
    write_config=_write_config,
    table=_table,
    is_tensor_parallel=True,
    prefix="module.",
)

GLM_HF = Format(
    name="glm-hf",
    holds="glm-10b, glm-2b, glm-large-chinese, ... as exported for Hugging Face",
    matches=lambda folder: _is_glm(folder, "glm."),
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
    prefix="glm.",
)
