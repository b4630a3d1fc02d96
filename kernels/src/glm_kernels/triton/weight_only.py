"""Linear layers with int4 or int8 weights, dequantized on their way into the product.

    y[m, n] = sum over k of x[m, k] * scale[n, g(k)] * (level[n, k] - zero[n, g(k)]) + bias[n]

The weight is a `PackedWeight`: rows in blocks of 16; of each row 4 bytes at a time, which are read
here as one 32-bit word. A word holds 8 columns of 4 bits (level + 8; the low halves of the bytes
are columns 0-3, the high halves 4-7), or 4 columns of 8 bits (two's complement).

One row of x (decoding) is multiplied on the ordinary units, and all of the weight's words are read
once; more rows go through the matrix units. The backward dequantizes some rows of the weight at a
time and multiplies them by torch's own matrix product.

Letters: M rows of x, K columns, N rows of the weight, G groups of a row, W words of a row.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from glm_kernels.triton.launch import device_of, matmul_precision
from glm_kernels.triton.tuning import lookup
from glm_kernels.weight_only import BLOCK, PackedWeight

ROWS: tl.constexpr = tl.constexpr(BLOCK)
CHUNK_BYTES = 64 * 2**20
"""Most bytes of dequantized weight that the backward holds at a time."""


@triton.jit
def _levels(word, BITS: tl.constexpr, COLUMN: tl.constexpr):
    """Return the level of one column of each word, 0 .. 15 or -128 .. 127, as fp32.

    The 4 bits are put into the mantissa of a float, which is faster than a conversion.
    """
    if BITS == 4:
        place: tl.constexpr = 8 * (COLUMN % 4) + 4 * (COLUMN // 4)
        bits = ((word >> place) & 15) | 0x4B000000  # 2^23 + level
        return bits.to(tl.float32, bitcast=True) - 8388616.0  # 2^23 + 8
    return ((word << (24 - 8 * COLUMN)) >> 24).to(tl.float32)


@triton.jit
def _all_levels(word, BITS: tl.constexpr, WORDS: tl.constexpr, COUNT: tl.constexpr):
    """Return the levels of words [WORDS, COUNT] as int32 [WORDS * columns of a word, COUNT]."""
    PER_WORD: tl.constexpr = 32 // BITS
    column = tl.arange(0, PER_WORD)[None, :, None]
    if BITS == 4:
        level = ((word[:, None, :] >> (8 * (column % 4) + 4 * (column // 4))) & 15) - 8
    else:
        level = (word[:, None, :] << (24 - 8 * column)) >> 24
    return tl.reshape(level, [WORDS * PER_WORD, COUNT])


@triton.jit
def _matrix_vector(
    x,
    levels,
    scales,
    zeros,
    bias,
    out,
    N,
    K,
    G,
    W,
    group_words,
    BITS: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """One row of x times 16 rows of the weight."""
    PER_WORD: tl.constexpr = 32 // BITS
    block, row = tl.program_id(0).to(tl.int64), tl.arange(0, ROWS)
    levels += block * W * ROWS
    first_group = block * G * ROWS + row
    acc = tl.zeros([BLOCK_W, ROWS], tl.float32)
    for first in range(0, W, BLOCK_W):
        w = first + tl.arange(0, BLOCK_W)
        inside = (w < W)[:, None]
        word = tl.load(levels + w[:, None] * ROWS + row[None, :], inside, other=0)
        group = first_group[None, :] + (w // group_words)[:, None] * ROWS
        total = tl.zeros([BLOCK_W, ROWS], tl.float32)
        sums = tl.zeros([BLOCK_W], tl.float32)
        for column in tl.static_range(PER_WORD):
            k = w * PER_WORD + column
            value = tl.load(x + k, k < K, other=0.0).to(tl.float32)
            total += _levels(word, BITS, column) * value[:, None]
            sums += value
        if HAS_ZEROS:
            total -= tl.load(zeros + group, inside, other=0).to(tl.float32) * sums[:, None]
        acc += total * tl.load(scales + group, inside, other=0.0).to(tl.float32)
    result = tl.sum(acc, 0)
    n = block * ROWS + row
    if HAS_BIAS:
        result += tl.load(bias + n, n < N, other=0.0).to(tl.float32)
    tl.store(out + n, result.to(out.dtype.element_ty), n < N)


@triton.jit
def _weight_tile(
    levels,
    scales,
    zeros,
    w,
    n,
    W,
    G,
    group_words,
    BITS: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    BY_GROUP: tl.constexpr,
    WORDS: tl.constexpr,
    COUNT: tl.constexpr,
):
    """Return weights [columns of words w, rows n] in fp32, unscaled if BY_GROUP is False."""
    PER_WORD: tl.constexpr = 32 // BITS
    block, row = (n // ROWS).to(tl.int64), n % ROWS
    at = (block * W * ROWS + row)[None, :] + w[:, None] * ROWS
    value = _all_levels(tl.load(levels + at, (w < W)[:, None], other=0), BITS, WORDS, COUNT)
    value = value.to(tl.float32)
    if BY_GROUP or HAS_ZEROS:
        group = (block * G * ROWS + row)[None, :] + (w // group_words)[:, None] * ROWS
        inside = (w < W)[:, None]
        if HAS_ZEROS:
            zero = tl.load(zeros + group, inside, other=0).to(tl.float32)
            value -= _for_each_column(zero, PER_WORD, WORDS, COUNT)
        if BY_GROUP:
            scale = tl.load(scales + group, inside, other=0.0).to(tl.float32)
            value *= _for_each_column(scale, PER_WORD, WORDS, COUNT)
    return value


@triton.jit
def _for_each_column(table, PER_WORD: tl.constexpr, WORDS: tl.constexpr, COUNT: tl.constexpr):
    """Repeat what belongs to a word for each of its columns."""
    wide = tl.broadcast_to(table[:, None, :], [WORDS, PER_WORD, COUNT])
    return tl.reshape(wide, [WORDS * PER_WORD, COUNT])


@triton.jit
def _matrix_matrix(
    x,
    levels,
    scales,
    zeros,
    bias,
    out,
    x_stride,
    M,
    N,
    K,
    G,
    W,
    group_words,
    last_block,
    BITS: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BY_GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of the result: BLOCK_M rows of x, BLOCK_N rows of the weight."""
    WORDS: tl.constexpr = BLOCK_K * BITS // 32
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = tl.minimum(n, last_block * ROWS + n % ROWS)  # blocks behind the last are not read
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        inside = (m < M)[:, None] & (k < K)[None, :]
        values = tl.load(x + m[:, None] * x_stride + k[None, :], inside, other=0.0)
        w = first * BITS // 32 + tl.arange(0, WORDS)
        # fmt: off
        weight = _weight_tile(levels, scales, zeros, w, there, W, G, group_words,
                              BITS, HAS_ZEROS, BY_GROUP, WORDS, BLOCK_N)
        # fmt: on
        acc = tl.dot(values, weight.to(values.dtype), acc, input_precision=PRECISION)
    if not BY_GROUP:  # one scale for a whole row: the product of the integers is exact
        scale = tl.load(scales + there)
        acc *= scale.to(tl.float32)[None, :]
    if HAS_BIAS:
        acc += tl.load(bias + n, n < N, other=0.0).to(tl.float32)[None, :]
    at = m[:, None] * N + n[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), (m < M)[:, None] & (n < N)[None, :])


@triton.jit
def _dequantize(
    levels,
    scales,
    zeros,
    out,
    first_row,
    rows,
    K,
    G,
    W,
    group_words,
    BITS: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    WORDS: tl.constexpr,
):
    """Write 16 rows of the weight, from `first_row` on, some words of them."""
    PER_WORD: tl.constexpr = 32 // BITS
    local = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    w = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    # fmt: off
    weight = _weight_tile(levels, scales, zeros, w, first_row + local, W, G, group_words,
                          BITS, HAS_ZEROS, True, WORDS, ROWS)
    # fmt: on
    k = tl.program_id(1) * WORDS * PER_WORD + tl.arange(0, WORDS * PER_WORD)
    at = local.to(tl.int64)[:, None] * K + k[None, :]
    inside = (local < rows)[:, None] & (k < K)[None, :]
    tl.store(out + at, tl.trans(weight).to(out.dtype.element_ty), inside)


def linear_weight_only(
    x: Tensor, packed: PackedWeight, bias: Tensor | None, activation_bits: int
) -> Tensor:
    """`glm_kernels.linear_weight_only`: x is not rounded, whatever `activation_bits` says."""
    del activation_bits
    needs_grad = x.requires_grad or (bias is not None and bias.requires_grad)
    traced = torch.compiler.is_compiling() or (needs_grad and torch.is_grad_enabled())
    out: Tensor = (_linear_op if traced else _linear)(
        *(x, packed.levels, packed.scales, packed.zeros, bias),
        *(packed.out_features, packed.in_features, packed.bits, packed.group or 0),
    )
    return out


def _linear(
    x: Tensor,
    levels: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    N: int,
    K: int,
    bits: int,
    group: int,
) -> Tensor:
    """Return [..., N]; `group` is 0 for whole rows."""
    out = x.new_empty((*x.shape[:-1], N))
    x_MK = x.reshape(-1, K)
    if x_MK.stride(1) != 1:
        x_MK = x_MK.contiguous()
    bias = None if bias is None else bias.contiguous()
    M = x_MK.shape[0]
    words, W, group_words = _words(levels, bits, group)
    flags = {"BITS": bits, "HAS_ZEROS": zeros is not None, "HAS_BIAS": bias is not None}
    tensors = (x_MK, words, scales, zeros, bias, out)
    with device_of(x):
        if M == 1:
            config = lookup("weight_only_vector", f"b{bits}", x.device)
            _matrix_vector[(len(levels),)](
                *(*tensors, N, K, scales.shape[1], W, group_words), **flags, **config
            )
        elif M:
            config = lookup("weight_only_matrix", _shape_key(M, x.dtype), x.device)
            grid = triton.cdiv(M, config["BLOCK_M"]), triton.cdiv(N, config["BLOCK_N"])
            _matrix_matrix[grid](
                *(*tensors, x_MK.stride(0), M, N, K, scales.shape[1], W, group_words),
                len(levels) - 1,
                **flags,
                BY_GROUP=group > 0,
                PRECISION=matmul_precision(x.dtype),
                **config,
            )
    return out


def _linear_grad(
    grad: Tensor,
    levels: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    K: int,
    bits: int,
    group: int,
) -> Tensor:
    """Return ``grad W``, [..., N] to [..., K], from some rows of the weight at a time."""
    grad_MN = grad.reshape(-1, grad.shape[-1])
    N = grad_MN.shape[1]
    step = max(1, CHUNK_BYTES // (K * grad.dtype.itemsize * BLOCK)) * BLOCK
    total = grad.new_zeros(grad_MN.shape[0], K, dtype=torch.float32)
    for first in range(0, N, step):
        rows = min(step, N - first)
        weight = dequantize(levels, scales, zeros, first, rows, K, bits, group, grad.dtype)
        total += grad_MN[:, first : first + rows] @ weight
    return total.to(grad.dtype).view(*grad.shape[:-1], K)


def dequantize(
    levels: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    first: int,
    rows: int,
    K: int,
    bits: int,
    group: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return rows first .. first + rows of a packed weight, [rows, K]; 16 divides first."""
    out = torch.empty((rows, K), dtype=dtype, device=levels.device)
    words, W, group_words = _words(levels, bits, group)
    config = lookup("weight_only_dequantize", f"b{bits}", levels.device)
    with device_of(levels):
        _dequantize[(triton.cdiv(rows, BLOCK), triton.cdiv(W, config["WORDS"]))](
            *(words, scales, zeros, out, first, rows, K, scales.shape[1], W, group_words),
            BITS=bits,
            HAS_ZEROS=zeros is not None,
            **config,
        )
    return out


def _words(levels: Tensor, bits: int, group: int) -> tuple[Tensor, int, int]:
    """Return the levels as words, the words of a row, and those of a group."""
    words = levels.view(torch.int32)
    W = words.shape[1] // BLOCK
    return words, W, group * bits // 32 or W


def _shape_key(M: int, dtype: torch.dtype) -> str:
    """Return the class of shapes by which `tuning` chooses."""
    if dtype == torch.float32:
        return "default"
    return "m16" if M <= 16 else "m64" if M <= 64 else "many"


_linear_op = torch.library.custom_op(
    "glm_kernels::linear_weight_only_triton", _linear, mutates_args=()
)
_linear_grad_op = torch.library.custom_op(
    "glm_kernels::linear_weight_only_triton_grad", _linear_grad, mutates_args=()
)


@_linear_op.register_fake
def _(x: Tensor, *arguments: Any) -> Tensor:
    N: int = arguments[4]
    return x.new_empty((*x.shape[:-1], N))


@_linear_grad_op.register_fake
def _(grad: Tensor, *arguments: Any) -> Tensor:
    K: int = arguments[3]
    return grad.new_empty((*grad.shape[:-1], K))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, levels, scales, zeros, bias, _, *ctx.layout = inputs
    ctx.save_for_backward(levels, scales, zeros)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = _linear_grad_op(grad, *ctx.saved_tensors, *ctx.layout)
    if ctx.needs_input_grad[4]:
        rows = grad.reshape(-1, grad.shape[-1])
        grad_bias = rows.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
    return grad_x, None, None, None, grad_bias, None, None, None, None


_linear_op.register_autograd(_backward, setup_context=_setup_context)
