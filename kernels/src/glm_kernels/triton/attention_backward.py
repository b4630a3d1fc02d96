"""Kernels of `glm_kernels.triton.attention`: the gradients of q, and of k and v.

    ds = p (dout v^T - delta), delta = sum(dout out);  dq = scale ds k;  dk = scale ds^T q

Letters as there: row m = t * G + g is query t of head g of the G heads that share a key head.
"""

from __future__ import annotations

import triton
import triton.language as tl

from glm_kernels.triton.attention_forward import interval_of, load_rows, phases, rows_of


@triton.jit
def _attend_grad_q(
    acc,
    q,
    grad,
    lse,
    delta,
    k,
    v,
    k_stride,
    v_stride,
    begin,
    end,
    start,
    stop,
    scale,
    H: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add to the gradient of q what keys begin .. end give, but for the factor of the scale."""
    for first in range(begin, end, BLOCK_N):
        s = first + tl.arange(0, BLOCK_N)
        keys = load_rows(k, s, k_stride, end, MASKED, H, BLOCK_H)
        scores = tl.dot(q, tl.trans(keys), input_precision=PRECISION) * scale
        weight = tl.exp2(scores - lse[:, None])
        if MASKED:
            seen = (s[None, :] >= start[:, None]) & (s[None, :] < stop[:, None])
            weight = tl.where(seen & (s < end)[None, :], weight, 0.0)
        values = load_rows(v, s, v_stride, end, MASKED, H, BLOCK_H)
        grad_weight = tl.dot(grad, tl.trans(values), input_precision=PRECISION)
        grad_scores = weight * (grad_weight - delta[:, None])
        acc = tl.dot(grad_scores.to(keys.dtype), keys, acc, input_precision=PRECISION)
    return acc


@triton.jit
def backward_q(
    q,
    k,
    v,
    start,
    stop,
    out,
    lse,
    grad_out,
    grad_q,
    delta,
    q_stride_b,
    q_stride_t,
    q_stride_n,
    k_stride_b,
    k_stride_s,
    k_stride_n,
    v_stride_b,
    v_stride_s,
    v_stride_n,
    bound_stride,
    T,
    N,
    sink,
    scale,
    scale2,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradient of a block of rows of q, and delta = sum(out grad_out) of each row."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    M = T * GROUP
    pair = tl.program_id(1).to(tl.int64)
    b, head = pair // (N // GROUP), pair % (N // GROUP)
    m, d = block * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_H)
    inside = (m < M)[:, None] & (d < H)[None, :]
    rows = rows_of(m, M, head, q_stride_t, q_stride_n, GROUP)
    queries = tl.load(q + b * q_stride_b + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
    out += b * T * N * H
    grad_out += b * T * N * H
    grad_q += b * T * N * H
    rows = rows_of(m, M, head, N * H, H, GROUP)
    grad = tl.load(grad_out + rows[:, None] + d[None, :], inside, other=0.0)
    value = tl.load(out + rows[:, None] + d[None, :], inside, other=0.0)
    sums = tl.sum(grad.to(tl.float32) * value.to(tl.float32), 1)
    tl.store(delta + pair * M + m, sums, m < M)
    logarithm = tl.load(lse + pair * M + m, m < M, other=float("-inf"))
    logarithm = tl.where(logarithm == float("-inf"), float("inf"), logarithm)  # no weights at all
    k += b * k_stride_b + head * k_stride_n
    v += b * v_stride_b + head * v_stride_n
    lo, hi = interval_of(start, stop, bound_stride, b, m, M, GROUP)
    lo = tl.maximum(lo, sink)
    begin, end = tl.min(lo), tl.max(hi)
    first, last = phases(begin, tl.max(lo), tl.min(hi), end, BLOCK_N)
    acc = tl.zeros([BLOCK_M, BLOCK_H], tl.float32)
    # fmt: off
    acc = _attend_grad_q(acc, queries, grad, logarithm, sums, k, v, k_stride_s, v_stride_s,
                         0, sink, lo * 0, hi * 0 + sink,
                         scale2, H, True, BLOCK_N, BLOCK_H, PRECISION)
    acc = _attend_grad_q(acc, queries, grad, logarithm, sums, k, v, k_stride_s, v_stride_s,
                         begin, first, lo, hi,
                         scale2, H, True, BLOCK_N, BLOCK_H, PRECISION)
    acc = _attend_grad_q(acc, queries, grad, logarithm, sums, k, v, k_stride_s, v_stride_s,
                         first, last, lo, hi,
                         scale2, H, False, BLOCK_N, BLOCK_H, PRECISION)
    acc = _attend_grad_q(acc, queries, grad, logarithm, sums, k, v, k_stride_s, v_stride_s,
                         last, end, lo, hi,
                         scale2, H, True, BLOCK_N, BLOCK_H, PRECISION)
    # fmt: on
    acc = (acc * scale).to(grad_q.dtype.element_ty)
    tl.store(grad_q + rows[:, None] + d[None, :], acc, inside)


@triton.jit
def _queries_of(start, stop, begin, end, sink, T, SCAN: tl.constexpr):
    """Return the queries that see keys begin .. end: the first, the first from which on all see
    all of these keys, and the one behind the last."""
    first, last = T, 0
    for t0 in range(0, T, SCAN):
        t = t0 + tl.arange(0, SCAN)
        lo, hi = tl.load(start + t, t < T, other=0), tl.load(stop + t, t < T, other=0)
        some = (lo < end) & (hi > begin) & (lo < hi) | (begin < sink)
        first = tl.minimum(first, tl.min(tl.where(some & (t < T), t, T)))
        last = tl.maximum(last, tl.max(tl.where(some & (t < T), t + 1, 0)))
    whole = first
    for t0 in range(first, last, SCAN):
        t = t0 + tl.arange(0, SCAN)
        lo, hi = tl.load(start + t, t < T, other=0), tl.load(stop + t, t < T, other=0)
        all_of_them = (lo <= begin) & (hi >= end) | (end <= sink)
        whole = tl.maximum(whole, tl.max(tl.where(all_of_them | (t >= last), first, t + 1)))
    return first, whole, last


@triton.jit
def _attend_grad_kv(
    state,
    keys,
    values,
    q,
    grad_out,
    lse,
    delta,
    start,
    stop,
    q_stride_t,
    q_stride_n,
    s,
    begin,
    end,
    head,
    M,
    N,
    sink,
    scale,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add to the gradients of k (but for the scale) and v what rows begin .. end give."""
    grad_k, grad_v = state
    d = tl.arange(0, BLOCK_H)
    for first in range(begin, end, BLOCK_M):
        m = first + tl.arange(0, BLOCK_M)
        rows = rows_of(m, M, head, q_stride_t, q_stride_n, GROUP)
        queries = tl.load(q + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
        rows = rows_of(m, M, head, N * H, H, GROUP)
        grad = tl.load(grad_out + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
        logarithm = tl.load(lse + m, m < end, other=float("-inf"))
        logarithm = tl.where(logarithm == float("-inf"), float("inf"), logarithm)
        # keys x rows, so that the weights are the left factor of a product as they stand
        scores = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale
        weight = tl.exp2(scores - logarithm[None, :])
        if MASKED:
            lo, hi = interval_of(start, stop, 0, 0, m, M, GROUP)
            seen = (s[:, None] >= lo[None, :]) & (s[:, None] < hi[None, :])
            weight = tl.where(seen | (s < sink)[:, None], weight, 0.0)
        grad_v = tl.dot(weight.to(grad.dtype), grad, grad_v, input_precision=PRECISION)
        grad_weight = tl.dot(values, tl.trans(grad), input_precision=PRECISION)
        sums = tl.load(delta + m, m < end, other=0.0)
        grad_scores = (weight * (grad_weight - sums[None, :])).to(queries.dtype)
        grad_k = tl.dot(grad_scores, queries, grad_k, input_precision=PRECISION)
    return grad_k, grad_v


@triton.jit
def backward_kv(
    q,
    k,
    v,
    start,
    stop,
    lse,
    delta,
    grad_out,
    grad_k,
    grad_v,
    q_stride_b,
    q_stride_t,
    q_stride_n,
    k_stride_b,
    k_stride_s,
    k_stride_n,
    v_stride_b,
    v_stride_s,
    v_stride_n,
    bound_stride,
    T,
    S,
    N,
    sink,
    scale,
    scale2,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    SCAN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradients of a block of keys and values."""
    M, key_heads = T * GROUP, N // GROUP
    pair = tl.program_id(1).to(tl.int64)
    b, head = pair // key_heads, pair % key_heads
    begin = tl.program_id(0) * BLOCK_N
    end = tl.minimum(begin + BLOCK_N, S)
    s = begin + tl.arange(0, BLOCK_N)
    keys = load_rows(k + b * k_stride_b + head * k_stride_n, s, k_stride_s, S, True, H, BLOCK_H)
    values = load_rows(v + b * v_stride_b + head * v_stride_n, s, v_stride_s, S, True, H, BLOCK_H)
    q += b * q_stride_b
    grad_out += b * T * N * H
    lse += pair * M
    delta += pair * M
    start += b * bound_stride
    stop += b * bound_stride
    t_first, t_whole, t_last = _queries_of(start, stop, begin, end, sink, T, SCAN)
    m_begin, m_end = t_first * GROUP, t_last * GROUP
    first, last = phases(m_begin, t_whole * GROUP, m_end, m_end, BLOCK_M)
    state = (
        tl.zeros([BLOCK_N, BLOCK_H], tl.float32),
        tl.zeros([BLOCK_N, BLOCK_H], tl.float32),
    )
    # fmt: off
    state = _attend_grad_kv(state, keys, values, q, grad_out, lse, delta, start, stop,
                            q_stride_t, q_stride_n, s, m_begin, first, head, M, N, sink, scale2,
                            H, GROUP, True, BLOCK_M, BLOCK_H, PRECISION)
    state = _attend_grad_kv(state, keys, values, q, grad_out, lse, delta, start, stop,
                            q_stride_t, q_stride_n, s, first, last, head, M, N, sink, scale2,
                            H, GROUP, False, BLOCK_M, BLOCK_H, PRECISION)
    state = _attend_grad_kv(state, keys, values, q, grad_out, lse, delta, start, stop,
                            q_stride_t, q_stride_n, s, last, m_end, head, M, N, sink, scale2,
                            H, GROUP, True, BLOCK_M, BLOCK_H, PRECISION)
    # fmt: on
    sum_k, sum_v = state
    d = tl.arange(0, BLOCK_H)
    at = ((b * S + s) * key_heads + head)[:, None] * H + d[None, :]
    inside = (s < S)[:, None] & (d < H)[None, :]
    tl.store(grad_k + at, (sum_k * scale).to(grad_k.dtype.element_ty), inside)
    tl.store(grad_v + at, sum_v.to(grad_v.dtype.element_ty), inside)
