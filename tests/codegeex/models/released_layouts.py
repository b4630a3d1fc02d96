"""CodeGeeX-13B's state dict in its other layouts, written by hand as the original scripts do it.

Nothing of the library is used: the state dict of `codegeex_oracle` is cut, joined and turned.
"""

import numpy as np
import torch


def shards(state, ranks):
    """mp_rank_XX contents: the rank's share of each tensor, as convert_ckpt_parallel.py cuts it."""
    model = state["language_model"]
    return [{"module": {"language_model": _shard(model, rank, ranks)}} for rank in range(ranks)]


def _shard(value, rank, ranks, name=""):
    if isinstance(value, dict):
        return {key: _shard(child, rank, ranks, f"{name}.{key}") for key, child in value.items()}
    if name.endswith(("attention.dense.weight", "mlp.dense_4h_to_h.weight")):
        return value.chunk(ranks, dim=1)[rank].clone()
    whole = ("layernorm.weight", "layernorm.bias", "attention.dense.bias", "dense_4h_to_h.bias")
    if name.endswith(whole) or "position_embeddings" in name:
        return value.clone()
    return value.chunk(ranks, dim=0)[rank].clone()


def fused(state):
    """Projections joined: all three in the layers, keys and values in the top-query layer."""
    model = state["language_model"]
    transformer = dict(model["transformer"])
    names = {name.rsplit(".attention.", 1)[0] for name in transformer if ".attention." in name}
    for block in names:
        joined = ("key", "value") if block == "topQueryLayer" else ("query", "key", "value")
        for kind in ("weight", "bias"):
            parts = [transformer.pop(f"{block}.attention.{part}.{kind}") for part in joined]
            transformer[f"{block}.attention.{'_'.join(joined)}.{kind}"] = torch.cat(parts)
    return {"language_model": model | {"transformer": transformer}}


def columns(state):
    """Paddle: each linear layer's weight with rows and columns exchanged."""
    model = state["language_model"]
    transformer = {
        name: tensor.t().contiguous() if tensor.dim() == 2 else tensor
        for name, tensor in model["transformer"].items()
    }
    return {"language_model": model | {"transformer": transformer}}


MINDSPORE = {
    "attention.query": ("attention.dense1", False),
    "attention.key": ("attention.dense2", False),
    "attention.value": ("attention.dense3", False),
    "attention.dense": ("attention.projection", True),
    "mlp.dense_h_to_4h": ("output.mapping", True),
    "mlp.dense_4h_to_h": ("output.projection", True),
    "input_layernorm": ("layernorm1", False),
    "post_attention_layernorm": ("layernorm2", False),
}


def mindspore(state):
    """Arrays by the names of their files, without the ending."""
    model = state["language_model"]
    tables = {
        "backbone.embedding.word_embedding": model["embedding"]["word_embeddings"],
        "backbone.embedding.position_embedding": model["embedding"]["position_embeddings"],
        "backbone.top_query_embedding": model["topQueryEmbedding"]["top_query_embeddings"],
    }
    arrays = {f"{name}.embedding_table": table["weight"] for name, table in tables.items()}
    for name, tensor in model["transformer"].items():
        if name.startswith("final_layernorm"):
            block, there = "layernorm", (name.rpartition(".")[2], False)
            arrays[f"backbone.layernorm.{_norm_kind(name)}"] = tensor
            continue
        block, _, rest = name.partition(".")
        if block == "layers":
            number, _, rest = rest.partition(".")
            block = f"blocks.{number}"
        else:
            block = "top_query_layer"
        module, _, kind = rest.rpartition(".")
        there, is_turned = MINDSPORE[module]
        kind = _norm_kind(name) if "layernorm" in module else kind
        turned = is_turned and kind == "weight"
        arrays[f"backbone.{block}.{there}.{kind}"] = tensor.t() if turned else tensor
    return {name: tensor.contiguous().numpy() for name, tensor in arrays.items()}


def _norm_kind(name):
    return "gamma" if name.endswith("weight") else "beta"


def save_mindspore(folder, state):
    folder.mkdir()
    for name, array in mindspore(state).items():
        np.save(folder / f"{name}.npy", array)


def save_shards(folder, state, ranks):
    folder.mkdir()
    for rank, content in enumerate(shards(state, ranks)):
        torch.save(content, folder / f"mp_rank_{rank:02d}_model_states.pt")


def save_file(folder, state, name="codegeex_13b.pt"):
    folder.mkdir()
    torch.save({"module": state}, folder / name)
