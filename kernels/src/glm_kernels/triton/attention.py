"""Flash attention over one interval of keys per query: see `glm_kernels.attention`.

    p = softmax(scale q k^T) over the visible keys;  out = p v
    dv = p^T dout;  ds = scale p (dout v^T - sum(dout out));  dq = ds k;  dk = ds^T q

The scores of a block live in registers and are never written; the backward computes them again
from the saved logarithm of each row's sum. Blocks of keys outside the intervals of a block of
queries are not visited, and blocks inside all of them are not masked. The query heads that share a
key head are rows of one block, so keys are read once for all of them.
Sources: arXiv 2205.14135 and 2307.08691 (tiling, backward), 2305.13245 (grouped queries).

Letters: B batch, T queries, S keys, N query heads, K key heads, G = N / K, H head dim;
row m = t * G + g is query t of head g of a group, M = T * G.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from glm_kernels.triton.launch import device_of, matmul_precision, num_programs, power_of_two
from glm_kernels.triton.tuning import lookup

LOG2E = math.log2(math.e)
SCAN = 1024
"""Queries whose intervals are looked at together."""
FEW = 16
"""At most so many rows are decoding: their keys are shared out among programs."""
SPLIT_KEYS, MAX_SPLITS = 256, 32
"""Fewest keys of a program then, and most programs."""


@triton.jit
def _rows(m, M, head, stride_t, stride_n, GROUP: tl.constexpr):
    """Return the offsets of rows m of key head `head` in a [T, N, H] tensor; the last row stands
    for those behind it."""
    inside = tl.minimum(m, M - 1)
    t = (inside // GROUP).to(tl.int64)
    return t * stride_t + (head * GROUP + inside % GROUP) * stride_n


@triton.jit
def _interval(start, stop, bound_stride, b, m, M, GROUP: tl.constexpr):
    """Return the first key and the end of the keys that each row sees."""
    at = b * bound_stride + tl.minimum(m, M - 1) // GROUP
    return tl.load(start + at), tl.load(stop + at)


@triton.jit
def _phases(begin, whole_begin, whole_end, end, BLOCK: tl.constexpr):
    """Cut begin .. end into blocks that need a mask, whole blocks, and blocks that need one.

    Return the two borders. All of whole_begin .. whole_end is visible.
    """
    first = begin + tl.cdiv(tl.maximum(whole_begin - begin, 0), BLOCK) * BLOCK
    first = tl.minimum(first, tl.maximum(end, begin))
    count = tl.maximum(tl.minimum(whole_end, end) - first, 0) // BLOCK
    return first, first + count * BLOCK


@triton.jit
def _tile(base, row, row_stride, end, MASKED: tl.constexpr, H: tl.constexpr, BLOCK_H: tl.constexpr):
    """Load rows of keys or values: [rows, BLOCK_H], zeros from row `end` and from dim H on."""
    d = tl.arange(0, BLOCK_H)
    pointers = base + row[:, None] * row_stride + d[None, :]
    if MASKED:
        return tl.load(pointers, (row < end)[:, None] & (d < H)[None, :], other=0.0)
    if H < BLOCK_H:
        return tl.load(pointers, (d < H)[None, :], other=0.0)
    return tl.load(pointers)


@triton.jit
def _attend(
    state,
    q,
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
    """Online softmax over keys begin .. end; `state` is (weighted values, sum, maximum)."""
    acc, total, largest = state
    for first in range(begin, end, BLOCK_N):
        s = first + tl.arange(0, BLOCK_N)
        keys = _tile(k, s, k_stride, end, MASKED, H, BLOCK_H)
        scores = tl.dot(q, tl.trans(keys), input_precision=PRECISION) * scale
        if MASKED:
            seen = (s[None, :] >= start[:, None]) & (s[None, :] < stop[:, None])
            scores = tl.where(seen & (s < end)[None, :], scores, float("-inf"))
        new = tl.maximum(largest, tl.max(scores, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp2(scores - safe[:, None])
        decay = tl.exp2(largest - safe)
        values = _tile(v, s, v_stride, end, MASKED, H, BLOCK_H)
        acc = tl.dot(
            weight.to(values.dtype), values, acc * decay[:, None], input_precision=PRECISION
        )
        total = total * decay + tl.sum(weight, 1)
        largest = new
    return acc, total, largest


@triton.jit
def _forward(
    q,
    k,
    v,
    start,
    stop,
    out,
    lse,
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
    H: tl.constexpr,
    GROUP: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write out and lse of a block of rows; of one share of the keys where SPLITS > 1."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)  # late queries see most keys: begin there
    M = T * GROUP
    pair, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    b, head = pair // (N // GROUP), pair % (N // GROUP)
    m, d = block * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_H)
    rows = _rows(m, M, head, q_stride_t, q_stride_n, GROUP)
    queries = tl.load(q + b * q_stride_b + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
    k += b * k_stride_b + head * k_stride_n
    v += b * v_stride_b + head * v_stride_n
    lo, hi = _interval(start, stop, bound_stride, b, m, M, GROUP)
    lo = tl.maximum(lo, sink)  # the sink is attended apart
    begin, end = tl.min(lo), tl.max(hi)
    if SPLITS > 1:
        share = tl.cdiv(tl.maximum(end - begin, 0), SPLITS * BLOCK_N) * BLOCK_N
        begin += split * share
        end = tl.minimum(end, begin + share)
        sink = tl.where(split == 0, sink, 0)
    first, last = _phases(begin, tl.max(lo), tl.min(hi), end, BLOCK_N)
    state = (
        tl.zeros([BLOCK_M, BLOCK_H], tl.float32),
        tl.zeros([BLOCK_M], tl.float32),
        tl.full([BLOCK_M], float("-inf"), tl.float32),
    )
    # fmt: off
    state = _attend(state, queries, k, v, k_stride_s, v_stride_s, 0, sink, lo * 0, hi * 0 + sink,
                    scale, H, True, BLOCK_N, BLOCK_H, PRECISION)
    state = _attend(state, queries, k, v, k_stride_s, v_stride_s, begin, first, lo, hi,
                    scale, H, True, BLOCK_N, BLOCK_H, PRECISION)
    state = _attend(state, queries, k, v, k_stride_s, v_stride_s, first, last, lo, hi,
                    scale, H, False, BLOCK_N, BLOCK_H, PRECISION)
    state = _attend(state, queries, k, v, k_stride_s, v_stride_s, last, end, lo, hi,
                    scale, H, True, BLOCK_N, BLOCK_H, PRECISION)
    # fmt: on
    acc, total, largest = state
    empty = total == 0.0
    acc = acc / tl.where(empty, 1.0, total)[:, None]
    logarithm = tl.where(empty, float("-inf"), largest + tl.log2(tl.where(empty, 1.0, total)))
    part = split * tl.num_programs(1) + pair  # parts of a split lie behind one another
    tl.store(lse + part * M + m, logarithm, m < M)
    out += (split * (tl.num_programs(1) // (N // GROUP)) + b) * T * N * H
    rows = _rows(m, M, head, N * H, H, GROUP)
    inside = (m < M)[:, None] & (d < H)[None, :]
    tl.store(out + rows[:, None] + d[None, :], acc.to(out.dtype.element_ty), inside)


@triton.jit
def _combine(
    parts,
    part_lse,
    out,
    lse,
    T,
    N,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Add up the parts of a row, each a mean over its share of the keys."""
    row, pairs, M = tl.program_id(0), tl.num_programs(1), T * GROUP
    pair = tl.program_id(1).to(tl.int64)
    b, head = pair // (N // GROUP), pair % (N // GROUP)
    split, d = tl.arange(0, SPLITS), tl.arange(0, BLOCK_H)
    logarithm = tl.load(part_lse + (split * pairs + pair) * M + row)
    largest = tl.max(logarithm)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    weight = tl.exp2(logarithm - largest)
    total = tl.sum(weight)
    weight = weight / tl.where(total == 0.0, 1.0, total)
    at = ((b * T + row // GROUP) * N + head * GROUP + row % GROUP) * H + d
    size = pairs // (N // GROUP) * T * N * H
    places = split.to(tl.int64)[:, None] * size + at[None, :]
    values = tl.load(parts + places, (d < H)[None, :], other=0.0)
    result = tl.sum(values * weight[:, None], 0)
    tl.store(out + at, result.to(out.dtype.element_ty), d < H)
    tl.store(lse + pair * M + row, largest + tl.log2(total))


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
        keys = _tile(k, s, k_stride, end, MASKED, H, BLOCK_H)
        scores = tl.dot(q, tl.trans(keys), input_precision=PRECISION) * scale
        weight = tl.exp2(scores - lse[:, None])
        if MASKED:
            seen = (s[None, :] >= start[:, None]) & (s[None, :] < stop[:, None])
            weight = tl.where(seen & (s < end)[None, :], weight, 0.0)
        values = _tile(v, s, v_stride, end, MASKED, H, BLOCK_H)
        grad_weight = tl.dot(grad, tl.trans(values), input_precision=PRECISION)
        grad_scores = weight * (grad_weight - delta[:, None])
        acc = tl.dot(grad_scores.to(keys.dtype), keys, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _backward_q(
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
    rows = _rows(m, M, head, q_stride_t, q_stride_n, GROUP)
    queries = tl.load(q + b * q_stride_b + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
    out += b * T * N * H
    grad_out += b * T * N * H
    grad_q += b * T * N * H
    rows = _rows(m, M, head, N * H, H, GROUP)
    grad = tl.load(grad_out + rows[:, None] + d[None, :], inside, other=0.0)
    value = tl.load(out + rows[:, None] + d[None, :], inside, other=0.0)
    sums = tl.sum(grad.to(tl.float32) * value.to(tl.float32), 1)
    tl.store(delta + pair * M + m, sums, m < M)
    logarithm = tl.load(lse + pair * M + m, m < M, other=float("-inf"))
    logarithm = tl.where(logarithm == float("-inf"), float("inf"), logarithm)  # no weights at all
    k += b * k_stride_b + head * k_stride_n
    v += b * v_stride_b + head * v_stride_n
    lo, hi = _interval(start, stop, bound_stride, b, m, M, GROUP)
    lo = tl.maximum(lo, sink)
    begin, end = tl.min(lo), tl.max(hi)
    first, last = _phases(begin, tl.max(lo), tl.min(hi), end, BLOCK_N)
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
        rows = _rows(m, M, head, q_stride_t, q_stride_n, GROUP)
        queries = tl.load(q + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
        rows = _rows(m, M, head, N * H, H, GROUP)
        grad = tl.load(grad_out + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
        logarithm = tl.load(lse + m, m < end, other=float("-inf"))
        logarithm = tl.where(logarithm == float("-inf"), float("inf"), logarithm)
        # keys x rows, so that the weights are the left factor of a product as they stand
        scores = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale
        weight = tl.exp2(scores - logarithm[None, :])
        if MASKED:
            lo, hi = _interval(start, stop, 0, 0, m, M, GROUP)
            seen = (s[:, None] >= lo[None, :]) & (s[:, None] < hi[None, :])
            weight = tl.where(seen | (s < sink)[:, None], weight, 0.0)
        grad_v = tl.dot(weight.to(grad.dtype), grad, grad_v, input_precision=PRECISION)
        grad_weight = tl.dot(values, tl.trans(grad), input_precision=PRECISION)
        sums = tl.load(delta + m, m < end, other=0.0)
        grad_scores = (weight * (grad_weight - sums[None, :])).to(queries.dtype)
        grad_k = tl.dot(grad_scores, queries, grad_k, input_precision=PRECISION)
    return grad_k, grad_v


@triton.jit
def _backward_kv(
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
    keys = _tile(k + b * k_stride_b + head * k_stride_n, s, k_stride_s, S, True, H, BLOCK_H)
    values = _tile(v + b * v_stride_b + head * v_stride_n, s, v_stride_s, S, True, H, BLOCK_H)
    q += b * q_stride_b
    grad_out += b * T * N * H
    lse += pair * M
    delta += pair * M
    start += b * bound_stride
    stop += b * bound_stride
    t_first, t_whole, t_last = _queries_of(start, stop, begin, end, sink, T, SCAN)
    m_begin, m_end = t_first * GROUP, t_last * GROUP
    first, last = _phases(m_begin, t_whole * GROUP, m_end, m_end, BLOCK_M)
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


def attention(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    start_BT: Tensor,
    stop_BT: Tensor,
    sink: int,
    scale: float,
) -> Tensor:
    """`glm_kernels.attention`: a custom op where gradients or torch.compile need one."""
    tensors = (q_BTNH, k_BSKH, v_BSKH)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    forward = _forward_op if needs_grad or torch.compiler.is_compiling() else _launch_forward
    out: Tensor = forward(q_BTNH, k_BSKH, v_BSKH, start_BT, stop_BT, sink, scale)[0]
    return out


def _launch_forward(
    q: Tensor, k: Tensor, v: Tensor, start: Tensor, stop: Tensor, sink: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Return out [B, T, N, H] and the base-2 logarithm of each row's sum, fp32 [B, K, T * G]."""
    q, k, v = (_dense_heads(tensor) for tensor in (q, k, v))
    (B, T, N, H), (_, S, K, _) = q.shape, k.shape
    out = torch.empty((B, T, N, H), dtype=q.dtype, device=q.device)
    lse = torch.empty((B, K, T * (N // K)), dtype=torch.float32, device=q.device)
    if not out.numel():
        return out, lse
    start, stop, sink = _clamped(start, stop, sink, S)
    few = T * (N // K) <= FEW
    config = lookup("attention_forward", _shape_key(q, few), q.device)
    blocks = triton.cdiv(T * (N // K), config["BLOCK_M"])
    splits = _splits(q.device, blocks * B * K, S) if few else 1
    part, part_lse = out, lse
    if splits > 1:
        part = torch.empty((splits, *out.shape), dtype=torch.float32, device=q.device)
        part_lse = torch.empty((splits, *lse.shape), dtype=torch.float32, device=q.device)
    sizes = {"H": H, "GROUP": N // K, "SPLITS": splits, "BLOCK_H": _block_h(H)}
    with device_of(q):
        _forward[(blocks, B * K, splits)](
            *(q, k, v, start, stop, part, part_lse, *_strides(q, k, v, start), T, N, sink),
            scale * LOG2E,
            **sizes,
            PRECISION=matmul_precision(q.dtype),
            **config,
        )
        if splits > 1:
            _combine[(T * (N // K), B * K)](part, part_lse, out, lse, T, N, **sizes)
    return out, lse


def _launch_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: Tensor,
    stop: Tensor,
    sink: int,
    scale: float,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    q, k, v = (_dense_heads(tensor) for tensor in (q, k, v))
    grad_out = grad_out.contiguous()
    grad_q, grad_k, grad_v = (
        torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in (q, k, v)
    )
    (B, T, N, H), (_, S, K, _) = q.shape, k.shape
    if not out.numel() or not k.numel():
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    start, stop, sink = _clamped(start, stop, sink, S)
    delta = torch.empty_like(lse)
    shape = _shape_key(q)
    config_q, config_kv = (lookup(f"attention_grad_{x}", shape, q.device) for x in ("q", "kv"))
    strides = _strides(q, k, v, start)
    scales = (scale, scale * LOG2E)
    shared: dict[str, Any] = {
        **{"H": H, "GROUP": N // K, "BLOCK_H": _block_h(H)},
        "PRECISION": matmul_precision(q.dtype),
    }
    with device_of(q):
        _backward_q[(triton.cdiv(T * (N // K), config_q["BLOCK_M"]), B * K)](
            *(q, k, v, start, stop, out, lse, grad_out, grad_q, delta, *strides, T, N, sink),
            *scales,
            **{**shared, **config_q},
        )
        _backward_kv[(triton.cdiv(S, config_kv["BLOCK_N"]), B * K)](
            *(q, k, v, start, stop, lse, delta, grad_out, grad_k, grad_v, *strides, T, S, N, sink),
            *scales,
            SCAN=min(SCAN, power_of_two(T)),
            **{**shared, **config_kv},
        )
    return grad_q, grad_k, grad_v


def _dense_heads(tensor: Tensor) -> Tensor:
    """The kernels take any strides but that of the head's dims, which must lie side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _clamped(start: Tensor, stop: Tensor, sink: int, S: int) -> tuple[Tensor, Tensor, int]:
    """Nobody sees keys that are not there."""
    return start.clamp(min=0).contiguous(), stop.clamp(max=S).contiguous(), min(sink, S)


def _strides(q: Tensor, k: Tensor, v: Tensor, start: Tensor) -> tuple[int, ...]:
    bound_stride = 0 if start.shape[0] == 1 else start.stride(0)
    return *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], bound_stride


def _block_h(H: int) -> int:
    return max(16, power_of_two(H))


def _shape_key(q: Tensor, few: bool = False) -> str:
    """Return the class of shapes by which `tuning` chooses."""
    wide = "w" if q.dtype == torch.float32 else ""
    return ("few" if few else f"h{_block_h(q.shape[-1])}") + wide


def _splits(device: torch.device, programs: int, S: int) -> int:
    """Return how many programs share the keys of a row, so that few rows keep a GPU busy."""
    wanted = min(2 * num_programs(device) // programs, S // SPLIT_KEYS, MAX_SPLITS)
    return power_of_two(wanted) if wanted > 1 else 1


_forward_op = torch.library.custom_op("glm_kernels::attention", _launch_forward, mutates_args=())
_backward_op = torch.library.custom_op(
    "glm_kernels::attention_grad", _launch_backward, mutates_args=()
)


@_forward_op.register_fake
def _(q: Tensor, k: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    B, T, N, _ = q.shape
    K = k.shape[2]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    return out, torch.empty((B, K, T * (N // K)), dtype=torch.float32, device=q.device)


@_backward_op.register_fake
def _(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, ...]:
    grads = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    return tuple(grads)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.sink, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad_out: Tensor, _grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out, lse = ctx.saved_tensors
    grads = _backward_op(grad_out, *tensors, ctx.sink, ctx.scale, out, lse)
    return (*grads, None, None, None, None)


_forward_op.register_autograd(_backward, setup_context=_save)
