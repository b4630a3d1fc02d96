"""GLM-130B: SwissArmyTransformer, a file per tensor-parallel rank.

Sources: THUDM/GLM-130B tools/convert_tp.py (each half of the gated projection is split on its own),
configs/model_glm_130b.sh.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats.base import Format, value_of
from glm_core.checkpoint.formats.rows import block, norm
from glm_core.checkpoint.keymap import Entry, Ignored, Split, Table
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset

_HEAD_DIM, _CONTEXT = 128, 2048
"""Of the one released model; its files do not say them."""
_PREFIX = "module."
_EMBEDDING = "transformer.word_embeddings.weight"
_MLP = _PREFIX + "transformer.layers.0.mlp"


def _matches(folder: WeightFolder) -> bool:
    first, second = (f"{_MLP}.{name}.weight" for name in ("dense_h_to_4h", "dense_4h_to_h"))
    if not all(map(folder.has, (_PREFIX + _EMBEDDING, first, second))):
        return False
    # gated: twice the rows of what the second projection takes, whose columns may be int4 pairs
    packing = folder.shape(_PREFIX + _EMBEDDING)[1] // folder.shape(first)[1]
    return folder.shape(first)[0] == 2 * folder.shape(second)[1] * packing


def _read_config(folder: WeightFolder) -> TransformerConfig:
    c, ranks = folder.config, len(folder.ranks)
    rows, hidden_size = folder.shape(_PREFIX + _EMBEDDING)
    first_rows = folder.shape(f"{_MLP}.dense_h_to_4h.weight")[0]
    layers = folder.count_layers(r"module\.transformer\.layers\.(\d+)\.")
    heads = value_of(c, "num_attention_heads", int, max(1, hidden_size // _HEAD_DIM))
    return replace(
        preset("glm-130b"),
        vocab_size=value_of(c, "vocab_size", int, rows * ranks),
        hidden_size=hidden_size,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=0,  # hidden_size / num_heads
        rotary_dim=0,  # all of it
        ffn_hidden_size=first_rows * ranks // 2,
        max_position_embeddings=value_of(c, "max_sequence_length", int, _CONTEXT),
        residual_scale=math.sqrt(2 * layers),
    )


def _write_config(config: TransformerConfig) -> dict[str, Any]:
    return {
        "model_type": "glm-130b",
        "hidden_size": config.hidden_size,
        "inner_hidden_size": config.ffn_hidden_size,
        "max_sequence_length": config.max_position_embeddings,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "vocab_size": config.vocab_size,
    }


def _table(config: TransformerConfig) -> Table:
    return [
        Entry("word_embeddings.weight", _EMBEDDING, Split.rows),
        *block(config, "layers.{layer}", "transformer.layers.{layer}"),
        *norm("final_norm", "transformer.final_layernorm", config),
        # inverse frequencies; the original computes them anew as well
        Ignored(r"(mixins|transformer)\..*inv_freq"),
    ]


GLM_130B = Format(
    name="glm-130b",
    holds="GLM-130B (SwissArmyTransformer)",
    matches=_matches,
    read_config=_read_config,
    write_config=_write_config,
    table=_table,
    is_tensor_parallel=True,
    prefix=_PREFIX,
)
