"""A model of ours as llama.cpp's llama architecture has it, for llama_file.py to write.

So both sides compute the same model, read the same tokens and write the same text, but for what
their ways to quantize differ in. Letters: N heads, H head size, D hidden size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from codegeex.fim.format import MIDDLE, PREFIX, SUFFIX
from glm_core.model import Transformer, TransformerConfig
from glm_core.model.config import Activation, Norm, Position, QkvLayout, Residual, RopeLayout
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer
from glm_core.tokenizer.protocol import Tokenizer

Array = NDArray[np.float32]
ARRAYS, SETTINGS = "tensors.npz", "settings.json"
_OF_LAYERS = {
    "input_norm": "attn_norm",
    "attention.dense": "attn_output",
    "post_attention_norm": "ffn_norm",
    "mlp.dense_4h_to_h": "ffn_down",
}


def unlike_llama(config: TransformerConfig, tokenizer: Tokenizer) -> str:
    """What llama.cpp's llama architecture does not have of a model; empty when it has all."""
    if not isinstance(tokenizer, ByteBPETokenizer):
        return "tokenizer of this kind"
    if config.norm != Norm.rmsnorm or config.residual != Residual.pre:
        return "norms of this kind"
    if config.activation != Activation.swiglu:
        return f"{config.activation.value} activation"
    if config.position != Position.rope or config.qkv_layout != QkvLayout.concatenated:
        return "attention of this kind"
    if config.qkv_bias or config.dense_bias or config.mlp_bias:
        return "biases"
    return ""


def export(model: Transformer, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a model of numbers, which `unlike_llama` finds nothing against, and its tokenizer."""
    np.savez(folder / ARRAYS, **arrays(model))  # type: ignore[arg-type]
    settings = settings_of(model.config, tokenizer)
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    assert isinstance(tokenizer, ByteBPETokenizer)
    tokenizer.save(folder)


def settings_of(config: TransformerConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What llama_file.py is told besides."""
    return {
        "context": config.max_position_embeddings,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.ffn_hidden_size,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rotary_dim": config.rotary_dim,
        "rope_theta": config.rope_theta,
        "norm_eps": config.norm_eps,
        "eos": tokenizer.eos_id,
        "fim_pre": tokenizer.token_id(PREFIX),
        "fim_suf": tokenizer.token_id(SUFFIX),
        "fim_mid": tokenizer.token_id(MIDDLE),
    }


def arrays(model: Transformer) -> dict[str, Array]:
    """Returns the weights by llama.cpp's names, fp32."""
    config, found = model.config, dict[str, Array]()
    for name, tensor in model.state_dict().items():
        array = tensor.float().numpy()
        owner, _, rest = name.removeprefix("layers.").partition(".")
        if name == "word_embeddings.weight":
            found["token_embd.weight"] = array
        elif name == "output_layer.weight":
            found["output.weight"] = array
        elif name == "final_norm.weight":
            found["output_norm.weight"] = array
        else:
            found |= _of_layer(f"blk.{owner}.", rest.removesuffix(".weight"), array, config)
    return found


def _of_layer(block: str, name: str, array: Array, config: TransformerConfig) -> dict[str, Array]:
    if name == "mlp.dense_h_to_4h":
        gate, up = np.split(array, 2)
        return {f"{block}ffn_gate.weight": gate, f"{block}ffn_up.weight": up}
    if name != "attention.query_key_value":
        return {f"{block}{_OF_LAYERS[name]}.weight": array}
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    q, k, v = np.split(array, [query, query + key])
    return {
        f"{block}attn_q.weight": _in_pairs(q, config),
        f"{block}attn_k.weight": _in_pairs(k, config),
        f"{block}attn_v.weight": v,
    }


def _in_pairs(rows: Array, config: TransformerConfig) -> Array:
    """Puts the two dims that rotate together beside each other, as llama.cpp has them."""
    if config.rope_layout == RopeLayout.interleaved:
        return rows
    rows_NHD = rearrange(rows, "(n h) d -> n h d", h=config.head_dim)
    turned = rearrange(rows_NHD[:, : config.rotary_dim], "n (two h) d -> n (h two) d", two=2)
    rest = rows_NHD[:, config.rotary_dim :]
    return rearrange(np.concatenate([turned, rest], axis=1), "n h d -> (n h) d")
