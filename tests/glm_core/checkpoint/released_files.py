"""Released files written by hand: names, stacking and splits as their authors' scripts make them.

Nothing is shared with the library. `w` maps our parameter names to numpy arrays; every function
returns what one file holds. Sources: THUDM/GLM change_mp.py; THUDM/GLM-130B tools/convert_tp.py;
THUDM/CodeGeeX convert_ckpt_parallel.py; modeling_chatglm.py of THUDM/chatglm-6b and chatglm2-6b.
"""

import argparse
import json
import random

import numpy as np
import torch


def share_of_rows(array, rank, ranks):
    return np.split(array, ranks, axis=0)[rank]


def share_of_columns(array, rank, ranks):
    return np.split(array, ranks, axis=1)[rank]


def share_of_parts(array, parts, rank, ranks):
    """The rank's share of each of `parts` equal parts, one below the other."""
    pieces = np.split(array, parts, axis=0)
    return np.concatenate([share_of_rows(piece, rank, ranks) for piece in pieces])


def weight_and_bias(w, ours, theirs, cut=lambda array: array):
    return {f"{theirs}.{kind}": cut(w[f"{ours}.{kind}"]) for kind in ("weight", "bias")}


def column_parallel(w, ours, theirs, rank, ranks):
    """Megatron's row-parallel layer: columns are shared, the bias is everybody's."""
    return {
        f"{theirs}.weight": share_of_columns(w[f"{ours}.weight"], rank, ranks),
        f"{theirs}.bias": w[f"{ours}.bias"],
    }


def megatron_block(w, ours, theirs, rank, ranks, qkv_parts, gate_parts):
    """Names that GLM took from Megatron. `qkv_parts` 3: per third; 1: whole heads in a row."""
    names = {}
    for norm, name in (
        ("input_norm", "input_layernorm"),
        ("post_attention_norm", "post_attention_layernorm"),
    ):
        names |= weight_and_bias(w, f"{ours}.{norm}", f"{theirs}.{name}")
    if qkv_parts:
        names |= weight_and_bias(
            w,
            f"{ours}.attention.query_key_value",
            f"{theirs}.attention.query_key_value",
            lambda array: share_of_parts(array, qkv_parts, rank, ranks),
        )
    names |= column_parallel(w, f"{ours}.attention.dense", f"{theirs}.attention.dense", rank, ranks)
    names |= weight_and_bias(
        w,
        f"{ours}.mlp.dense_h_to_4h",
        f"{theirs}.mlp.dense_h_to_4h",
        lambda array: share_of_parts(array, gate_parts, rank, ranks),
    )
    return names | column_parallel(
        w, f"{ours}.mlp.dense_4h_to_h", f"{theirs}.mlp.dense_4h_to_h", rank, ranks
    )


def glm(w, layers, rank=0, ranks=1):
    """GLM as trained: the state dict under "module"."""
    names = {
        "word_embeddings.weight": share_of_rows(w["word_embeddings.weight"], rank, ranks),
        "transformer.position_embeddings.weight": w["positions.position_embeddings.weight"],
        "transformer.block_position_embeddings.weight": w[
            "positions.block_position_embeddings.weight"
        ],
    }
    for layer in range(layers):
        there = f"transformer.layers.{layer}"
        names |= megatron_block(w, f"layers.{layer}", there, rank, ranks, 3, 1)
    return names | weight_and_bias(w, "final_norm", "transformer.final_layernorm")


def glm_hf(w, layers):
    """The export for Hugging Face, with the head that repeats the embedding."""
    names = {f"glm.{name}": array for name, array in glm(w, layers).items()}
    return names | {"glm.lm_head.weight": w["word_embeddings.weight"]}


def glm_130b(w, layers, rank=0, ranks=1):
    """SwissArmyTransformer: heads in a row, each half of the gated projection on its own."""
    names = {"transformer.word_embeddings.weight": share_of_rows(w[EMBEDDING], rank, ranks)}
    for layer in range(layers):
        there = f"transformer.layers.{layer}"
        names |= megatron_block(w, f"layers.{layer}", there, rank, ranks, 1, 2)
    names |= weight_and_bias(w, "final_norm", "transformer.final_layernorm")
    return names | {"mixins.rotary-embedding.rotary_emb.inv_freq": np.ones(4, np.float16)}


def chatglm(w, layers):
    """ChatGLM-6B: a head that is stored whether or not it is the embedding."""
    names = {
        "transformer.word_embeddings.weight": w[EMBEDDING],
        "lm_head.weight": w.get("output_layer.weight", w[EMBEDDING]),
    }
    for layer in range(layers):
        there = f"transformer.layers.{layer}"
        names |= megatron_block(w, f"layers.{layer}", there, 0, 1, 1, 1)
        names[f"{there}.attention.rotary_emb.inv_freq"] = np.ones(2, np.float16)
    return names | weight_and_bias(w, "final_norm", "transformer.final_layernorm")


def chatglm2(w, layers):
    """ChatGLM2, ChatGLM3, GLM-4: one block [Q; K; V], and [gate; up], as here."""
    names = {
        "transformer.embedding.word_embeddings.weight": w[EMBEDDING],
        "transformer.rotary_pos_emb.inv_freq": np.ones(2, np.float16),
        "transformer.encoder.final_layernorm.weight": w["final_norm.weight"],
        "transformer.output_layer.weight": w["output_layer.weight"],
    }
    for layer in range(layers):
        here, there = f"layers.{layer}", f"transformer.encoder.layers.{layer}"
        names |= {
            f"{there}.input_layernorm.weight": w[f"{here}.input_norm.weight"],
            f"{there}.post_attention_layernorm.weight": w[f"{here}.post_attention_norm.weight"],
            f"{there}.self_attention.dense.weight": w[f"{here}.attention.dense.weight"],
            f"{there}.mlp.dense_h_to_4h.weight": w[f"{here}.mlp.dense_h_to_4h.weight"],
            f"{there}.mlp.dense_4h_to_h.weight": w[f"{here}.mlp.dense_4h_to_h.weight"],
        }
        names |= weight_and_bias(
            w, f"{here}.attention.query_key_value", f"{there}.self_attention.query_key_value"
        )
    return names


def codegeex_13b(w, layers, rank=0, ranks=1):
    """CodeGeeX-13B: {"language_model": ...} with the transformer's keys flat, q, k and v apart."""

    def block(ours, theirs):
        names = megatron_block(w, ours, theirs, rank, ranks, 0, 1)
        for kind in ("weight", "bias"):
            fused = np.split(w[f"{ours}.attention.query_key_value.{kind}"], 3)
            for part, array in zip(("query", "key", "value"), fused, strict=True):
                names[f"{theirs}.attention.{part}.{kind}"] = share_of_rows(array, rank, ranks)
        return names

    transformer = weight_and_bias(w, "final_norm", "final_layernorm")
    for layer in range(layers):
        transformer |= block(f"layers.{layer}", f"layers.{layer}")
    transformer |= block("top_query.block", "topQueryLayer")
    return {
        "language_model": {
            "embedding": {
                "word_embeddings": {"weight": share_of_rows(w[EMBEDDING], rank, ranks)},
                "position_embeddings": {"weight": w["positions.position_embeddings.weight"]},
            },
            "topQueryEmbedding": {
                "top_query_embeddings": {
                    "weight": share_of_rows(w["top_query.embedding.weight"], rank, ranks)
                }
            },
            "transformer": transformer,
        }
    }


EMBEDDING = "word_embeddings.weight"

TRAINING_STATE = {
    "iteration": 49300,
    "optimizer": None,
    "csr_tensor_module_names": set(),
    "random_rng_state": random.Random(1).getstate(),
    "np_rng_state": np.random.RandomState(1).get_state(),
    "torch_rng_state": torch.get_rng_state(),
    "rng_tracker_states": {"model-parallel-rng": torch.get_rng_state()},
    "loss": np.float64(2.5),
    "args": argparse.Namespace(num_layers=2, lr=1e-4),
}
"""What DeepSpeed and Megatron store beside the weights."""


def as_tensors(value):
    """The same nesting with tensors for arrays."""
    if isinstance(value, dict):
        return {key: as_tensors(child) for key, child in value.items()}
    return torch.from_numpy(np.array(value, order="C"))


def save_ranks(folder, states, others=TRAINING_STATE):
    """Writes mp_rank_XX_model_states.pt files, the weights under "module"."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, state in enumerate(states):
        content = {"module": as_tensors(state)} | others
        torch.save(content, folder / f"mp_rank_{rank:02d}_model_states.pt")


def save_bin(folder, state, config, files=1):
    """Writes pytorch_model.bin, or several with an index, and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = as_tensors(state)
    if files == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    weight_map = {}
    for number in range(files):
        name = f"pytorch_model-{number + 1:05d}-of-{files:05d}.bin"
        part = {key: tensors[key] for key in sorted(tensors)[number::files]}
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def arrays_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
