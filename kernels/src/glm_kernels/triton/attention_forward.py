"""Kernels of `glm_kernels.triton.attention`: the forward, and what it shares with the backward.

Letters as there: row m = t * G + g is query t of head g of the G heads that share a key head.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rows_of(m, M, head, stride_t, stride_n, GROUP: tl.constexpr):
    """Return the offsets of rows m of key head `head` in a [T, N, H] tensor; the last row stands
    for those behind it."""
    inside = tl.minimum(m, M - 1)
    t = (inside // GROUP).to(tl.int64)
    return t * stride_t + (head * GROUP + inside % GROUP) * stride_n


@triton.jit
def interval_of(start, stop, bound_stride, b, m, M, GROUP: tl.constexpr):
    """Return the first key and the end of the keys that each row sees."""
    at = b * bound_stride + tl.minimum(m, M - 1) // GROUP
    return tl.load(start + at), tl.load(stop + at)


@triton.jit
def phases(begin, whole_begin, whole_end, end, BLOCK: tl.constexpr):
    """Cut begin .. end into blocks that need a mask, whole blocks, and blocks that need one.

    Return the two borders. All of whole_begin .. whole_end is visible.
    """
    first = begin + tl.cdiv(tl.maximum(whole_begin - begin, 0), BLOCK) * BLOCK
    first = tl.minimum(first, tl.maximum(end, begin))
    count = tl.maximum(tl.minimum(whole_end, end) - first, 0) // BLOCK
    return first, first + count * BLOCK


@triton.jit
def load_rows(
    base, row, row_stride, end, MASKED: tl.constexpr, H: tl.constexpr, BLOCK_H: tl.constexpr
):
    """Load rows of keys or values: [rows, BLOCK_H], zeros from row `end` and from dim H on."""
    d = tl.arange(0, BLOCK_H)
    pointers = base + row[:, None].to(tl.int64) * row_stride + d[None, :]
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
        keys = load_rows(k, s, k_stride, end, MASKED, H, BLOCK_H)
        scores = tl.dot(q, tl.trans(keys), input_precision=PRECISION) * scale
        if MASKED:
            seen = (s[None, :] >= start[:, None]) & (s[None, :] < stop[:, None])
            scores = tl.where(seen & (s < end)[None, :], scores, float("-inf"))
        new = tl.maximum(largest, tl.max(scores, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp2(scores - safe[:, None])
        decay = tl.exp2(largest - safe)
        values = load_rows(v, s, v_stride, end, MASKED, H, BLOCK_H)
        acc = tl.dot(
            weight.to(values.dtype), values, acc * decay[:, None], input_precision=PRECISION
        )
        total = total * decay + tl.sum(weight, 1)
        largest = new
    return acc, total, largest


@triton.jit
def forward(
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
    S,
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
    rows = rows_of(m, M, head, q_stride_t, q_stride_n, GROUP)
    queries = tl.load(q + b * q_stride_b + rows[:, None] + d[None, :], (d < H)[None, :], other=0.0)
    k += b * k_stride_b + head * k_stride_n
    v += b * v_stride_b + head * v_stride_n
    lo, hi = interval_of(start, stop, bound_stride, b, m, M, GROUP)
    lo, hi = tl.maximum(lo, sink), tl.minimum(hi, S)  # the sink is attended apart
    begin, end = tl.min(lo), tl.max(hi)
    if SPLITS > 1:
        share = tl.cdiv(tl.maximum(end - begin, 0), SPLITS * BLOCK_N) * BLOCK_N
        begin += split * share
        end = tl.minimum(end, begin + share)
        sink = tl.where(split == 0, sink, 0)
    first, last = phases(begin, tl.max(lo), tl.min(hi), end, BLOCK_N)
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
    rows = rows_of(m, M, head, N * H, H, GROUP)
    inside = (m < M)[:, None] & (d < H)[None, :]
    tl.store(out + rows[:, None] + d[None, :], acc.to(out.dtype.element_ty), inside)


@triton.jit
def combine(
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
