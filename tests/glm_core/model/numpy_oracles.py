"""Members of the family written out in numpy, as their authors' code computes them.

Nothing is shared with the library: each function follows the original's order of operations, with
its own way of masking and scaling. `w` maps the names of our parameters to arrays; `visible` is
bool [B, T, S]; `ids` is [B, T], `positions` [B, 2, T]. Letters: N query heads, K key/value heads,
H head size, P prefix columns.

Weights in float64 give the formula. Weights in float16 give the originals' half precision: every
step rounds, while sums, norms, activations and the softmaxes marked so are float32 inside.
"""

import math

import numpy as np

erf = np.vectorize(math.erf, otypes=[np.float64])


def wide(x):
    """At least float32."""
    return x.astype(np.promote_types(x.dtype, np.float32))


def matmul(a, b):
    return (wide(a) @ wide(b)).astype(a.dtype)


def over(x, number):
    """x / number, rounded once; numpy alone would first round the number to float16."""
    return (wide(x) / number).astype(x.dtype)


def layer_norm(x, w, name, eps=1e-5):
    y = wide(x)
    y = y - y.mean(axis=-1, keepdims=True)
    y = y / np.sqrt((y**2).mean(axis=-1, keepdims=True) + eps)
    return (y * w[f"{name}.weight"] + w[f"{name}.bias"]).astype(x.dtype)


def rms_norm(x, w, name, eps):
    y = wide(x)
    y = y / np.sqrt((y**2).mean(axis=-1, keepdims=True) + eps)
    return (y * w[f"{name}.weight"]).astype(x.dtype)


def linear(x, w, name):
    y = wide(x) @ wide(w[f"{name}.weight"]).T
    return (y + w[f"{name}.bias"] if f"{name}.bias" in w else y).astype(x.dtype)


def gelu_tanh(x):
    y = wide(x)
    return (0.5 * y * (1.0 + np.tanh(0.7978845608028654 * y * (1.0 + 0.044715 * y * y)))).astype(
        x.dtype
    )


def gelu_erf(x):
    y = wide(x)
    return (0.5 * y * (1.0 + erf(y / math.sqrt(2.0)))).astype(x.dtype)


def fast_gelu(x):
    """CodeGeeX's own way to write x sigmoid(1.702 x), rounded at every step."""

    def rounded(y):
        return wide(y.astype(x.dtype))

    size = np.abs(wide(x))
    below = rounded(1.0 + rounded(np.exp(rounded(-1.702 * size))))
    tail = rounded(np.exp(rounded(0.851 * rounded(wide(x) - size))))
    return (rounded(wide(x) / below) * tail).astype(x.dtype)


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


def prefix_rows(w):
    """The prefix encoder's output, [P, width]; None without one."""
    rows = w.get("prefix.embedding.weight")
    if "prefix.trans.0.weight" in w:
        rows = linear(np.tanh(linear(rows, w, "prefix.trans.0")), w, "prefix.trans.2")
    return rows


def with_prefix(w, layer, k, v):
    """Puts the prefix of a layer in front of keys and values [B, K, S, H]."""
    rows = prefix_rows(w)
    if rows is None:
        return k, v
    B, K, _, H = k.shape
    past = rows.reshape(len(rows), -1, 2, K, H)[:, layer].transpose(1, 2, 0, 3)
    k_past, v_past = (np.broadcast_to(part, (B, *part.shape)) for part in past)
    return np.concatenate([k_past, k], axis=2), np.concatenate([v_past, v], axis=2)


def sees_prefix(w, visible):
    """Visibility with the prefix in front: every column sees it."""
    rows = prefix_rows(w)
    count = 0 if rows is None else len(rows)
    return np.pad(visible, ((0, 0), (0, 0), (count, 0)), constant_values=True)


def glm_logits(w, ids, positions, visible, layers, N, attention_scale=1.0):
    """GLM: pre-LN, two added position tables, GELU by tanh, tied head.

    The mask multiplies the scores and then subtracts 65504; the softmax is in the scores' dtype.
    With PB-relax (attention_scale > 1) the scores are computed that many times smaller, freed of
    their row's maximum and restored.
    """
    x = w["word_embeddings.weight"][ids]
    at, block_at = positions[:, 0], positions[:, 1]
    x = x + (
        w["positions.position_embeddings.weight"][at]
        + w["positions.block_position_embeddings.weight"][block_at]
    )
    mask = sees_prefix(w, visible)[:, None].astype(x.dtype)
    for layer in range(layers):
        p = f"layers.{layer}"
        mixed = linear(layer_norm(x, w, f"{p}.input_norm"), w, f"{p}.attention.query_key_value")
        q, k, v = (heads(part, N) for part in np.split(mixed, 3, axis=-1))
        k, v = with_prefix(w, layer, k, v)
        if attention_scale > 1.0:
            q = over(q, math.sqrt(attention_scale))
        k = over(k, math.sqrt(q.shape[-1] * attention_scale))
        scores = matmul(q, k.swapaxes(-1, -2)) * mask
        if attention_scale > 1.0:
            scores = (scores - scores.max(axis=-1, keepdims=True)) * attention_scale
        scores = scores + -65504.0 * (1.0 - mask)
        weights = softmax(wide(scores)).astype(x.dtype)
        x = x + linear(merge(matmul(weights, v)), w, f"{p}.attention.dense")
        inner = linear(layer_norm(x, w, f"{p}.post_attention_norm"), w, f"{p}.mlp.dense_h_to_4h")
        x = x + linear(gelu_tanh(inner), w, f"{p}.mlp.dense_4h_to_h")
    return matmul(layer_norm(x, w, "final_norm"), w["word_embeddings.weight"].T)


def frequencies(R, dtype):
    """1 / 10000^(i / R), in float32 when the model is in half precision."""
    dtype = np.promote_types(dtype, np.float32)
    return (1.0 / 10000.0 ** (np.arange(0, R, 2).astype(dtype) / R)).astype(dtype)


def angles_of(positions, frequency):
    return positions[..., None].astype(frequency.dtype) * frequency


def rotate_neox(x, angle):
    """x [B, N, T, R] turned by angle [B, T, R / 2]: dim i goes with dim i + R / 2."""
    R = x.shape[-1]
    cos, sin = (
        np.concatenate([f(angle)] * 2, -1)[:, None].astype(x.dtype) for f in (np.cos, np.sin)
    )
    rotated = np.concatenate([-x[..., R // 2 :], x[..., : R // 2]], axis=-1)
    return x * cos + rotated * sin


def rotate_pairs(x, angle):
    """x [B, N, T, R] turned by angle [B, T, R / 2]: dim 2i goes with dim 2i + 1."""
    cos, sin = np.cos(angle)[:, None].astype(x.dtype), np.sin(angle)[:, None].astype(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)


def deepnorm_logits(w, ids, visible, layers, N, alpha, rotate, mlp):
    """The block that GLM-130B and ChatGLM-6B share.

    Each head's rows of the fused projection are [q, k, v]; scores are divided by the layer's
    number, masked with -10000 and multiplied back in float32; the residual is the *normalised*
    input.
    """
    h = w["word_embeddings.weight"][ids]
    mask = sees_prefix(w, visible)[:, None]
    for layer in range(layers):
        p = f"layers.{layer}"
        a = layer_norm(h, w, f"{p}.input_norm")
        mixed = heads(linear(a, w, f"{p}.attention.query_key_value"), N)
        q, k, v = np.split(mixed, 3, axis=-1)
        q, (k, v) = rotate(q), with_prefix(w, layer, rotate(k), v)
        q = over(q, math.sqrt(q.shape[-1]) * (layer + 1))
        scores = np.where(mask, matmul(q, k.swapaxes(-1, -2)), np.array(-10000.0, q.dtype))
        weights = softmax(wide(scores) * (layer + 1)).astype(h.dtype)
        h = over(a, 1 / alpha) + linear(merge(matmul(weights, v)), w, f"{p}.attention.dense")
        m = layer_norm(h, w, f"{p}.post_attention_norm")
        inner = mlp(linear(m, w, f"{p}.mlp.dense_h_to_4h"))
        h = over(m, 1 / alpha) + linear(inner, w, f"{p}.mlp.dense_4h_to_h")
    return matmul(layer_norm(h, w, "final_norm"), w["word_embeddings.weight"].T)


def glm_130b_logits(w, ids, positions, visible, layers, N):
    """GLM-130B: alpha = sqrt(2 L), 1-D RoPE over the whole head, GeGLU on the second half."""

    def geglu(x):
        first, second = np.split(x, 2, axis=-1)
        return first * gelu_erf(second)

    def rotate(x):
        return rotate_neox(x, angles_of(positions[:, 0], frequencies(x.shape[-1], x.dtype)))

    return deepnorm_logits(w, ids, visible, layers, N, math.sqrt(2 * layers), rotate, geglu)


def chatglm_6b_logits(w, ids, positions, visible, layers, N, half_frequencies=False):
    """ChatGLM-6B: alpha = sqrt(56) whatever the depth, 2-D RoPE, plain GELU by tanh.

    The frequencies are stored as float16 (half_frequencies, and always in half precision), where
    the angles are float16 too.
    """

    def rotate(x):
        half = frequencies(x.shape[-1] // 2, x.dtype)
        if half_frequencies or x.dtype == np.float16:
            half = half.astype(np.float16).astype(x.dtype)
        angles = angles_of(positions, half)
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate(
            [rotate_neox(first, angles[:, 0]), rotate_neox(second, angles[:, 1])], axis=-1
        )

    return deepnorm_logits(w, ids, visible, layers, N, math.sqrt(56), rotate, gelu_tanh)


def chatglm2_logits(w, ids, positions, visible, layers, N, position_scale=1.0, eps=1e-5):
    """ChatGLM2: RMSNorm, two key/value groups, RoPE of pairs on half the head, SwiGLU.

    Rows of the fused projection are [queries, keys of both groups, values of both]; the head is
    its own. ChatGLM2-6B-32k divides the positions (position_scale).
    """
    x = w["word_embeddings.weight"][ids]
    mask = sees_prefix(w, visible)[:, None]
    K = 2
    for layer in range(layers):
        p = f"layers.{layer}"
        mixed = linear(rms_norm(x, w, f"{p}.input_norm", eps), w, f"{p}.attention.query_key_value")
        H = mixed.shape[-1] // (N + 2 * K)
        q, k, v = np.split(mixed, [N * H, (N + K) * H], axis=-1)
        q, k, v = heads(q, N), heads(k, K), heads(v, K)
        angle = angles_of(positions[:, 0] / position_scale, frequencies(H // 2, x.dtype))
        q, k = (
            np.concatenate([rotate_pairs(y[..., : H // 2], angle), y[..., H // 2 :]], axis=-1)
            for y in (q, k)
        )
        k, v = (np.repeat(y, N // K, axis=1) for y in with_prefix(w, layer, k, v))
        scores = over(wide(matmul(q, k.swapaxes(-1, -2))), math.sqrt(H))
        weights = softmax(np.where(mask, scores, -np.inf)).astype(x.dtype)
        x = x + linear(merge(matmul(weights, v)), w, f"{p}.attention.dense")
        gate, value = np.split(
            linear(rms_norm(x, w, f"{p}.post_attention_norm", eps), w, f"{p}.mlp.dense_h_to_4h"),
            2,
            axis=-1,
        )
        x = x + linear(gate / (1.0 + np.exp(-gate)) * value, w, f"{p}.mlp.dense_4h_to_h")
    return matmul(rms_norm(x, w, "final_norm", eps), w["output_layer.weight"].T)


def codegeex_block(w, p, layer, x, query, mask, N):
    """A block of CodeGeeX: scores are rounded, scaled, and lose 10000 where hidden.

    Queries come from `query` when it is given, without norm: the top-query layer.
    """
    rows = np.split(w[f"{p}.attention.query_key_value.weight"], 3)
    biases = np.split(w[f"{p}.attention.query_key_value.bias"], 3)
    own = {
        f"{kind}.{part}": value
        for part, values in (("weight", rows), ("bias", biases))
        for kind, value in zip("qkv", values, strict=True)
    }
    normed = layer_norm(x, w, f"{p}.input_norm")
    q = heads(linear(normed if query is None else query, own, "q"), N)
    k, v = with_prefix(w, layer, *(heads(linear(normed, own, kind), N) for kind in "kv"))
    scores = over(matmul(q, k.swapaxes(-1, -2)), math.sqrt(q.shape[-1]))
    weights = softmax(wide(scores) - ~mask * 10000.0).astype(x.dtype)
    x = x + linear(merge(matmul(weights, v)), w, f"{p}.attention.dense")
    inner = linear(layer_norm(x, w, f"{p}.post_attention_norm"), w, f"{p}.mlp.dense_h_to_4h")
    return x + linear(fast_gelu(inner), w, f"{p}.mlp.dense_4h_to_h")


def codegeex_logits(w, ids, positions, visible, layers, N):
    """CodeGeeX-13B: one added position table; the final norm stands below the top-query layer."""
    at = positions[:, 0]
    x = w["word_embeddings.weight"][ids] + w["positions.position_embeddings.weight"][at]
    mask = sees_prefix(w, visible)[:, None]
    for layer in range(layers):
        x = codegeex_block(w, f"layers.{layer}", layer, x, None, mask, N)
    x = layer_norm(x, w, "final_norm")
    x = codegeex_block(
        w, "top_query.block", layers, x, w["top_query.embedding.weight"][at], mask, N
    )
    return matmul(x, w["word_embeddings.weight"].T)


def loss_of(logits, labels):
    """Sum over labelled columns of -log softmax(logits)[label]."""
    total = 0.0
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), strict=True):
        if label >= 0:
            total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[label]
    return total
