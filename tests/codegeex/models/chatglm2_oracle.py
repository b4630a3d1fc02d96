"""CodeGeeX2-6B and CodeGeeX4-9B written out in plain torch: nothing of the library is used.

Both have the block of ChatGLM2: RMSNorm, one fused projection [queries; keys; values] with two
key/value groups, rotation of neighbouring pairs in the first half of each head, a gated SiLU. GLM-4
multiplies the base of the frequencies by rope_ratio. It reads the released state dict and
config.json, one text at a time, without padding and without a cache.

Letters: T columns, D hidden size, N heads, G groups, H head size, V vocabulary.
"""

import math

import torch


def rms_norm(x, weight, eps):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (weight.to(wide.dtype) * wide).to(x.dtype)


def rotation(length, head_dim, base, dtype):
    """cos and sin for each pair, [T, H / 4], in float32 as the model's own code makes them."""
    kind = torch.promote_types(dtype, torch.float32)
    rotary = head_dim // 2
    frequency = 1.0 / base ** (torch.arange(0, rotary, 2, dtype=kind) / rotary)
    angle = torch.arange(length, dtype=kind)[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x_TNH, cos, sin):
    half = x_TNH.shape[-1] // 2
    turned, rest = x_TNH[..., :half], x_TNH[..., half:]
    a, b = turned[..., 0::2], turned[..., 1::2]
    cos, sin = cos[:, None], sin[:, None]
    pairs = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1)
    return torch.cat([pairs.flatten(-2).to(x_TNH.dtype), rest], dim=-1)


def block(x_TD, weights, name, config, table):
    def linear(x, part):
        bias = weights.get(f"{name}.{part}.bias")
        bias = None if bias is None else bias.to(x.dtype)
        return torch.nn.functional.linear(x, weights[f"{name}.{part}.weight"].to(x.dtype), bias)

    eps, T = config["layernorm_epsilon"], len(x_TD)
    N, G, H = (
        config["num_attention_heads"],
        config["multi_query_group_num"],
        config["kv_channels"],
    )
    normed = rms_norm(x_TD, weights[f"{name}.input_layernorm.weight"], eps)
    mixed = linear(normed, "self_attention.query_key_value")
    q, k, v = mixed.split([N * H, G * H, G * H], dim=-1)
    q, k = (rotate(part.reshape(T, -1, H), *table) for part in (q, k))
    k, v = (part.reshape(T, G, H).repeat_interleave(N // G, dim=1) for part in (k, v))
    scores_NTT = torch.einsum("tnh,snh->nts", q, k) / math.sqrt(H)
    hidden_TT = torch.ones(T, T, dtype=torch.bool).triu(1)
    wide = torch.promote_types(x_TD.dtype, torch.float32)
    shares = torch.softmax(scores_NTT.to(wide).masked_fill(hidden_TT, -math.inf), dim=-1)
    out = torch.einsum("nts,snh->tnh", shares.to(x_TD.dtype), v).reshape(T, N * H)
    x_TD = x_TD + linear(out, "self_attention.dense")
    normed = rms_norm(x_TD, weights[f"{name}.post_attention_layernorm.weight"], eps)
    gate, value = linear(normed, "mlp.dense_h_to_4h").chunk(2, dim=-1)
    return x_TD + linear(gate * torch.sigmoid(gate) * value, "mlp.dense_4h_to_h")


@torch.no_grad()
def logits(weights, config, ids, dtype=torch.float32):
    """Logits after every column, [T, V]."""
    x_TD = weights["transformer.embedding.word_embeddings.weight"][torch.tensor(ids)].to(dtype)
    base = 10000.0 * config.get("rope_ratio", 1)
    table = rotation(len(ids), config["kv_channels"], base, dtype)
    for layer in range(config["num_layers"]):
        x_TD = block(x_TD, weights, f"transformer.encoder.layers.{layer}", config, table)
    last = weights["transformer.encoder.final_layernorm.weight"]
    x_TD = rms_norm(x_TD, last, config["layernorm_epsilon"])
    head = weights["transformer.output_layer.weight"].to(dtype)
    return torch.nn.functional.linear(x_TD, head)


CODEGEEX2 = {
    "_name_or_path": "THUDM/codegeex2-6b",
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False,
    "ffn_hidden_size": 48,
    "hidden_size": 64,
    "kv_channels": 16,
    "layernorm_epsilon": 1e-05,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 3,
    "original_rope": True,
    "padded_vocab_size": 448,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 96,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
    "pad_token_id": 2,
}
CODEGEEX4 = CODEGEEX2 | {
    "_name_or_path": "THUDM/codegeex4-all-9b",
    "layernorm_epsilon": 1.5625e-07,
    "rope_ratio": 500,
    "seq_length": 128,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""config.json as released, at a tiny size."""


def random_weights(config, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale):
        return (scale * torch.randn(*shape, generator=generator)).to(dtype)

    def matrix(rows, columns):
        return draw(rows, columns, scale=columns**-0.5)

    D, F, H = config["hidden_size"], config["ffn_hidden_size"], config["kv_channels"]
    fused = (config["num_attention_heads"] + 2 * config["multi_query_group_num"]) * H
    weights = {
        "transformer.embedding.word_embeddings.weight": draw(
            config["padded_vocab_size"], D, scale=1.0
        ),
        "transformer.rotary_pos_emb.inv_freq": 1 / 10000 ** (torch.arange(0, H // 2, 2) / (H // 2)),
        "transformer.encoder.final_layernorm.weight": 1 + draw(D, scale=0.2),
        "transformer.output_layer.weight": matrix(config["padded_vocab_size"], D),
    }
    for layer in range(config["num_layers"]):
        name = f"transformer.encoder.layers.{layer}"
        weights |= {
            f"{name}.input_layernorm.weight": 1 + draw(D, scale=0.2),
            f"{name}.post_attention_layernorm.weight": 1 + draw(D, scale=0.2),
            f"{name}.self_attention.query_key_value.weight": matrix(fused, D),
            f"{name}.self_attention.query_key_value.bias": draw(fused, scale=0.2),
            f"{name}.self_attention.dense.weight": matrix(D, config["num_attention_heads"] * H),
            f"{name}.mlp.dense_h_to_4h.weight": matrix(2 * F, D),
            f"{name}.mlp.dense_4h_to_h.weight": matrix(D, F),
        }
    return weights
