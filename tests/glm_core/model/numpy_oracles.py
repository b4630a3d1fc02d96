"""GLM, GLM-130B and ChatGLM-6B written out in numpy float64, as their authors' code computes them.

Nothing is shared with the library: each function follows the original's order of operations, with
its own way of masking and scaling. `w` maps the names of our parameters to arrays; `visible` is
bool [B, T, S]; `ids` is [B, T], `positions` [B, 2, T]. Letters: N heads, H head size.
"""

import math

import numpy as np

erf = np.vectorize(math.erf, otypes=[np.float64])


def layer_norm(x, w, name):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def gelu_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(0.7978845608028654 * x * (1.0 + 0.044715 * x * x)))


def gelu_erf(x):
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def heads(x, N):
    """[B, T, N * H] to [B, N, T, H]."""
    B, T, width = x.shape
    return x.reshape(B, T, N, width // N).transpose(0, 2, 1, 3)


def merge(x):
    """[B, N, T, H] to [B, T, N * H]."""
    B, N, T, H = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, N * H)


def glm_logits(w, ids, positions, visible, layers, N, attention_scale=1.0):
    """GLM: pre-LN, two added position tables, GELU by tanh, tied head.

    The mask multiplies the scores and then subtracts 65504. With PB-relax (attention_scale > 1)
    the scores are computed that many times smaller, freed of their row's maximum and restored.
    """
    x = w["word_embeddings.weight"][ids]
    x = x + w["positions.position_embeddings.weight"][positions[:, 0]]
    x = x + w["positions.block_position_embeddings.weight"][positions[:, 1]]
    mask = visible[:, None].astype(np.float64)
    for layer in range(layers):
        p = f"layers.{layer}"
        mixed = linear(layer_norm(x, w, f"{p}.input_norm"), w, f"{p}.attention.query_key_value")
        q, k, v = (heads(part, N) for part in np.split(mixed, 3, axis=-1))
        scores = (q / attention_scale) @ (k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
        scores = scores * mask
        if attention_scale > 1.0:
            scores = (scores - scores.max(axis=-1, keepdims=True)) * attention_scale
        weights = softmax(scores - 65504.0 * (1.0 - mask))
        x = x + linear(merge(weights @ v), w, f"{p}.attention.dense")
        inner = linear(layer_norm(x, w, f"{p}.post_attention_norm"), w, f"{p}.mlp.dense_h_to_4h")
        x = x + linear(gelu_tanh(inner), w, f"{p}.mlp.dense_4h_to_h")
    return layer_norm(x, w, "final_norm") @ w["word_embeddings.weight"].T


def rotate_neox(x, position):
    """x [B, N, T, R] turned by position [B, T]: dim i goes with dim i + R / 2."""
    R = x.shape[-1]
    inverse_frequency = 1.0 / 10000.0 ** (np.arange(0, R, 2) / R)
    angle = position[:, None, :, None] * inverse_frequency
    cos, sin = np.concatenate([np.cos(angle)] * 2, -1), np.concatenate([np.sin(angle)] * 2, -1)
    rotated = np.concatenate([-x[..., R // 2 :], x[..., : R // 2]], axis=-1)
    return x * cos + rotated * sin


def deepnorm_logits(w, ids, visible, layers, N, alpha, rotate, mlp):
    """The block that GLM-130B and ChatGLM-6B share.

    Each head's rows of the fused projection are [q, k, v]; scores are divided by the layer's
    number, masked with -10000 and multiplied back; the residual is the *normalised* input.
    """
    h = w["word_embeddings.weight"][ids]
    for layer in range(layers):
        p = f"layers.{layer}"
        a = layer_norm(h, w, f"{p}.input_norm")
        mixed = heads(linear(a, w, f"{p}.attention.query_key_value"), N)
        q, k, v = np.split(mixed, 3, axis=-1)
        q, k = rotate(q), rotate(k)
        q = q / (math.sqrt(q.shape[-1]) * (layer + 1))
        scores = np.where(visible[:, None], q @ k.swapaxes(-1, -2), -10000.0)
        context = merge(softmax(scores * (layer + 1)) @ v)
        h = alpha * a + linear(context, w, f"{p}.attention.dense")
        m = layer_norm(h, w, f"{p}.post_attention_norm")
        inner = mlp(linear(m, w, f"{p}.mlp.dense_h_to_4h"))
        h = alpha * m + linear(inner, w, f"{p}.mlp.dense_4h_to_h")
    return layer_norm(h, w, "final_norm") @ w["word_embeddings.weight"].T


def glm_130b_logits(w, ids, positions, visible, layers, N):
    """GLM-130B: alpha = sqrt(2 L), 1-D RoPE over the whole head, GeGLU on the second half."""

    def geglu(x):
        first, second = np.split(x, 2, axis=-1)
        return first * gelu_erf(second)

    def rotate(x):
        return rotate_neox(x, positions[:, 0])

    return deepnorm_logits(w, ids, visible, layers, N, math.sqrt(2 * layers), rotate, geglu)


def chatglm_6b_logits(w, ids, positions, visible, layers, N):
    """ChatGLM-6B: alpha = sqrt(56) whatever the depth, 2-D RoPE, plain GELU by tanh."""

    def rotate(x):
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate(
            [rotate_neox(first, positions[:, 0]), rotate_neox(second, positions[:, 1])], axis=-1
        )

    return deepnorm_logits(w, ids, visible, layers, N, math.sqrt(56), rotate, gelu_tanh)


def loss_of(logits, labels):
    """Sum over labelled columns of -log softmax(logits)[label]."""
    total = 0.0
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), strict=True):
        if label >= 0:
            total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[label]
    return total
