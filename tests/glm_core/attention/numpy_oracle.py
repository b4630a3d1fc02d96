"""Masks and attention written from their definitions, in numpy float64.

Nothing here is shared with the library but the names of the mask kinds.
"""

import numpy as np

from glm_core.attention import Causal, Full, LeftPadded, Packed, Prefixed, PrefixLM, RightPadded


def sees(spec, row, q, k):
    """Whether column q of a row may look at column k."""
    if isinstance(spec, Causal):
        return k <= q
    if isinstance(spec, Full):
        return True
    if isinstance(spec, PrefixLM):
        return k < spec.prefix_len[row] or k <= q
    if isinstance(spec, Packed):
        return sees_in_packed_row(spec.segments[row], q, k)
    if isinstance(spec, LeftPadded):
        pad = spec.pads[row]
        if q < pad or k < pad:
            return q == k
        return sees(spec.inner, row, q - pad, k - pad)
    if isinstance(spec, Prefixed):
        if k < spec.count:
            return True
        return q >= spec.count and sees(spec.inner, row, q - spec.count, k - spec.count)
    if isinstance(spec, RightPadded):
        if q >= spec.lengths[row] or k >= spec.lengths[row]:
            return q == k
        return sees(spec.inner, row, q, k)
    raise TypeError(spec)


def sees_in_packed_row(segments, q, k):
    start = 0
    for length, prefix in segments:
        q_inside, k_inside = start <= q < start + length, start <= k < start + length
        if q_inside or k_inside:
            return q_inside and k_inside and (k < start + prefix or k <= q)
        start += length
    return k <= q  # both in the padding behind the last sample


def visible_matrix(spec, batch, q_len, kv_len, q_offset=0):
    """bool [B, T, S]."""
    return np.array(
        [
            [[sees(spec, b, q_offset + t, s) for s in range(kv_len)] for t in range(q_len)]
            for b in range(batch)
        ]
    )


def attention(q, k, v, visible, d_out=None):
    """softmax(q k^T / sqrt(H)) v, and its derivatives.

    Args:
        q, d_out: [B, T, N, H]; k, v: [B, S, K, H]; visible: [B, T, S].

    Returns:
        out, and when d_out is given also the gradients of q, k, v.
    """
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    N, K, H = q.shape[2], k.shape[2], q.shape[3]
    out, dq, dk, dv = np.zeros_like(q), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for b in range(q.shape[0]):
        for n in range(N):
            g = n // (N // K)
            scores = q[b, :, n] @ k[b, :, g].T / np.sqrt(H)
            scores = np.where(visible[b], scores, -np.inf)
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            out[b, :, n] = p @ v[b, :, g]
            if d_out is None:
                continue
            d = np.asarray(d_out[b, :, n], dtype=np.float64)
            dp = d @ v[b, :, g].T
            ds = p * (dp - (dp * p).sum(axis=1, keepdims=True)) / np.sqrt(H)
            dq[b, :, n] = ds @ k[b, :, g]
            dk[b, :, g] += ds.T @ q[b, :, n]
            dv[b, :, g] += p.T @ d
    return out if d_out is None else (out, dq, dk, dv)
