"""CodeGeeX-13B written out in plain torch, from its description: nothing of the library is used.

It reads the released state dict itself, {"language_model": ...} with queries, keys and values
apart, one text at a time, without padding and without a cache. Its steps are those of the published
half-precision code, in its order, so that it rounds where that code rounds:

* scores are the rounded product, then divided by sqrt(head size), then less 10000 where hidden;
* softmax in fp32, its result rounded; QuickGELU in seven rounded steps;
* LayerNorm in one of two ways: of the half-precision model (`Norms.model`), or in fp32 on fp32
  weights with the result rounded (`Norms.single`).

Letters: T columns, D hidden size, N heads, H head size, V vocabulary.
"""

import math
from enum import Enum

import torch


class Norms(Enum):
    model = "model"
    single = "single"


def layer_norm(x_TD, weights, name, norms):
    weight_D, bias_D = weights[f"{name}.weight"], weights[f"{name}.bias"]
    width = x_TD.shape[-1:]
    if norms is Norms.single:
        wide = torch.layer_norm(x_TD.float(), width, weight_D.float(), bias_D.float(), 1e-5)
        return wide.to(x_TD.dtype)
    weight_D, bias_D = weight_D.to(x_TD.dtype), bias_D.to(x_TD.dtype)
    return torch.layer_norm(x_TD, width, weight_D, bias_D, 1e-5)


def linear(x, weights, name):
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return torch.nn.functional.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def quick_gelu(x):
    size = x.abs()
    return x / (1 + (-1.702 * size).exp()) * (0.851 * (x - size)).exp()


def attention(query_TD, normed_TD, weights, name, num_heads):
    """The mixed values, [T, D]; a column sees itself and what is left of it."""
    T, D = normed_TD.shape
    q, k, v = (
        linear(source, weights, f"{name}.{part}").view(T, num_heads, -1).transpose(0, 1)
        for source, part in ((query_TD, "query"), (normed_TD, "key"), (normed_TD, "value"))
    )
    scores_NTT = torch.matmul(q, k.transpose(1, 2)) / math.sqrt(D // num_heads)
    hidden_TT = torch.ones(T, T, dtype=torch.bool).triu(1)
    scores_NTT = scores_NTT - hidden_TT * 10000.0
    shares_NTT = torch.softmax(scores_NTT.to(wider(q.dtype)), dim=-1).to(q.dtype)
    return torch.matmul(shares_NTT, v).transpose(0, 1).reshape(T, D)


def wider(dtype):
    return torch.promote_types(dtype, torch.float32)


def block(x_TD, query_TD, weights, name, num_heads, norms):
    normed_TD = layer_norm(x_TD, weights, f"{name}.input_layernorm", norms)
    query_TD = normed_TD if query_TD is None else query_TD
    mixed_TD = attention(query_TD, normed_TD, weights, f"{name}.attention", num_heads)
    x_TD = x_TD + linear(mixed_TD, weights, f"{name}.attention.dense")
    inner = layer_norm(x_TD, weights, f"{name}.post_attention_layernorm", norms)
    inner = quick_gelu(linear(inner, weights, f"{name}.mlp.dense_h_to_4h"))
    return x_TD + linear(inner, weights, f"{name}.mlp.dense_4h_to_h")


@torch.no_grad()
def logits(state, ids, num_heads, dtype=torch.float32, norms=Norms.model):
    """Logits after every column, [T, V].

    Args:
        state: the released state dict; norms are taken in the dtype they have there.
        ids: of one text.
        dtype: what is computed in.
    """
    model = state["language_model"]
    weights = model["transformer"]
    words_VD = model["embedding"]["word_embeddings"]["weight"].to(dtype)
    places = model["embedding"]["position_embeddings"]["weight"].to(dtype)
    queries = model["topQueryEmbedding"]["top_query_embeddings"]["weight"].to(dtype)
    T = len(ids)
    x_TD = words_VD[torch.tensor(ids)] + places[:T]
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    for layer in range(layers):
        x_TD = block(x_TD, None, weights, f"layers.{layer}", num_heads, norms)
    # the last norm stands below the top-query layer, whose residual stream it is too
    x_TD = layer_norm(x_TD, weights, "final_layernorm", norms)
    x_TD = block(x_TD, queries[:T], weights, "topQueryLayer", num_heads, norms)
    return torch.nn.functional.linear(x_TD, words_VD)


def random_state(hidden_size=64, layers=3, vocab_size=136, positions=48, seed=0):
    """A state dict in fp32 in which every number matters."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator)

    def norm(name):
        weight = 1 + draw(hidden_size, scale=0.2)
        return {f"{name}.weight": weight, f"{name}.bias": draw(hidden_size, scale=0.2)}

    def dense(name, rows, columns):
        weight = draw(rows, columns, scale=columns**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": draw(rows, scale=0.2)}

    transformer = norm("final_layernorm")
    for name in [*(f"layers.{layer}" for layer in range(layers)), "topQueryLayer"]:
        transformer |= norm(f"{name}.input_layernorm")
        transformer |= norm(f"{name}.post_attention_layernorm")
        for part in ("query", "key", "value", "dense"):
            transformer |= dense(f"{name}.attention.{part}", hidden_size, hidden_size)
        transformer |= dense(f"{name}.mlp.dense_h_to_4h", 4 * hidden_size, hidden_size)
        transformer |= dense(f"{name}.mlp.dense_4h_to_h", hidden_size, 4 * hidden_size)
    return {
        "language_model": {
            "embedding": {
                "word_embeddings": {"weight": draw(vocab_size, hidden_size)},
                "position_embeddings": {"weight": draw(positions, hidden_size)},
            },
            "topQueryEmbedding": {"top_query_embeddings": {"weight": draw(positions, hidden_size)}},
            "transformer": transformer,
        }
    }
