"""Norms over the last dimension, with the residual addition in front of them fused.

    stream = residual + gate * x
    out = (stream - mean) / sqrt(mean((stream - mean)^2) + eps) * weight + bias

rms_norm has no mean and no bias. Statistics and sums are in fp32. Sources: arXiv 1910.07467
(rms_norm), 1607.06450 (layer_norm); the backward of both is the derivative of the line above.

Letters: S samples that have a weight, bias and gate of their own (1 where all rows share them),
T rows of a sample, D hidden size, P programs of a sample.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.triton.launch import num_programs, power_of_two, warps_for

TILE = 2048
"""Elements that a program holds at a time where rows are short."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`glm_kernels.rms_norm`: any shape [..., D], weight [D], dtypes fp32, bf16, fp16."""
    out: Tensor = _Norm.apply(x, None, None, weight, None, eps, True)[0]
    return out


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """`glm_kernels.layer_norm`: any shape [..., D], weight and bias [D]."""
    out: Tensor = _Norm.apply(x, None, None, weight, bias, eps, False)[0]
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`glm_kernels.add_rms_norm`: the norm of ``residual + x``, and that sum."""
    out: tuple[Tensor, Tensor] = _Norm.apply(x, residual, None, weight, None, eps, True)
    return out


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """`glm_kernels.add_layer_norm`: the norm of ``residual + x``, and that sum."""
    out: tuple[Tensor, Tensor] = _Norm.apply(x, residual, None, weight, bias, eps, False)
    return out


def norm_by_sample(
    x: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Layer norm of ``residual + gate * x`` with a weight, bias and gate for each sample.

    Args:
        x: [S, ..., D].
        residual: shape of x, or None for 0.
        gate: [S, D], or None for 1.
        weight: [S, D].
        bias: [S, D], or None for 0.
        eps: added to the variance.

    Returns:
        the norm and the sum, both in the shape and dtype of x.
    """
    out: tuple[Tensor, Tensor] = _Norm.apply(x, residual, gate, weight, bias, eps, False)
    return out


@triton.jit
def _forward(
    x,
    residual,
    gate,
    weight,
    bias,
    out,
    stream,
    mean,
    rstd,
    T,
    D,
    eps,
    RMS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK_D)
    row = sample * T + t
    at = row[:, None] * D + d[None, :]
    inside = (t < T)[:, None] & (d < D)[None, :]
    own = sample * D + d  # place of a column in this sample's weight, bias and gate

    value = tl.load(x + at, inside, other=0.0).to(tl.float32)
    if HAS_GATE:
        value *= tl.load(gate + own, d < D, other=0.0).to(tl.float32)[None, :]
    if HAS_RESIDUAL:
        value += tl.load(residual + at, inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL or HAS_GATE:
        rounded = value.to(stream.dtype.element_ty)
        tl.store(stream + at, rounded, inside)
        value = rounded.to(tl.float32)  # the backward sees the stream as it is stored
    if not RMS:
        average = tl.sum(value, 1) / D
        tl.store(mean + row, average, t < T)
        value = tl.where(inside, value - average[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(value * value, 1) / D + eps)
    tl.store(rstd + row, scale, t < T)
    value *= scale[:, None] * tl.load(weight + own, d < D, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        value += tl.load(bias + own, d < D, other=0.0).to(tl.float32)[None, :]
    tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit
def _backward(
    grad_out,
    grad_stream,
    x,
    stream,
    gate,
    weight,
    mean,
    rstd,
    grad_x,
    grad_residual,
    grad_weight,
    grad_bias,
    grad_gate,
    T,
    D,
    RMS: tl.constexpr,
    HAS_GRAD_STREAM: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    first, step = tl.program_id(0) * ROWS, tl.num_programs(0) * ROWS
    d = tl.arange(0, BLOCK_D)
    own = sample * D + d
    weights = tl.load(weight + own, d < D, other=0.0).to(tl.float32)[None, :]
    gates = weights
    if HAS_GATE:
        gates = tl.load(gate + own, d < D, other=0.0).to(tl.float32)[None, :]
    sum_weight = tl.zeros([BLOCK_D], tl.float32)
    sum_bias = tl.zeros([BLOCK_D], tl.float32)
    sum_gate = tl.zeros([BLOCK_D], tl.float32)
    for begin in range(first, T, step):
        t = begin + tl.arange(0, ROWS)
        row = sample * T + t
        at = row[:, None] * D + d[None, :]
        inside = (t < T)[:, None] & (d < D)[None, :]
        scale = tl.load(rstd + row, t < T, other=0.0)[:, None]
        normed = tl.load(stream + at, inside, other=0.0).to(tl.float32) * scale
        if not RMS:
            normed -= tl.load(mean + row, t < T, other=0.0)[:, None] * scale
            normed = tl.where(inside, normed, 0.0)
        grad = tl.load(grad_out + at, inside, other=0.0).to(tl.float32)
        sum_weight += tl.sum(grad * normed, 0)
        if HAS_BIAS:
            sum_bias += tl.sum(grad, 0)
        grad *= weights
        total = grad - normed * (tl.sum(grad * normed, 1) / D)[:, None]
        if not RMS:
            total -= (tl.sum(grad, 1) / D)[:, None]
        total *= scale
        if HAS_GRAD_STREAM:
            total += tl.load(grad_stream + at, inside, other=0.0).to(tl.float32)
        if HAS_RESIDUAL:
            tl.store(grad_residual + at, total.to(grad_residual.dtype.element_ty), inside)
        if HAS_GATE:
            value = tl.load(x + at, inside, other=0.0).to(tl.float32)
            sum_gate += tl.sum(tl.where(inside, total * value, 0.0), 0)
            total *= gates
        tl.store(grad_x + at, total.to(grad_x.dtype.element_ty), inside)
    partial = (sample * tl.num_programs(0) + tl.program_id(0)) * D + d
    tl.store(grad_weight + partial, sum_weight, d < D)
    if HAS_BIAS:
        tl.store(grad_bias + partial, sum_bias, d < D)
    if HAS_GATE:
        tl.store(grad_gate + partial, sum_gate, d < D)


class _Norm(torch.autograd.Function):
    """Both norms, with and without residual, gate and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        gate: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        rms: bool,
    ) -> tuple[Tensor, Tensor]:
        x, weight = x.contiguous(), weight.contiguous()
        gate, bias, residual = _contiguous(gate), _contiguous(bias), _contiguous(residual)
        samples, size = weight.numel() // x.shape[-1], x.shape[-1]
        rows = x.numel() // max(1, samples * size)
        adds = residual is not None or gate is not None
        stream = torch.empty_like(x, dtype=_stream_dtype(x, residual)) if adds else x
        out_dtype = torch.promote_types(stream.dtype, weight.dtype) if rms else stream.dtype
        out = torch.empty_like(x, dtype=out_dtype)
        mean, rstd = x.new_empty(2, samples, rows, dtype=torch.float32)
        block = power_of_two(size)
        tile = max(1, min(TILE // block, power_of_two(rows)))
        if x.numel():
            _forward[(triton.cdiv(rows, tile), samples)](
                *(x, residual, gate, weight, bias, out, stream, mean, rstd, rows, size, eps),
                RMS=rms,
                HAS_RESIDUAL=residual is not None,
                HAS_GATE=gate is not None,
                HAS_BIAS=bias is not None,
                ROWS=tile,
                BLOCK_D=block,
                num_warps=warps_for(block * tile),
            )
        ctx.save_for_backward(x if gate is not None else None, stream, gate, weight, mean, rstd)
        ctx.set_materialize_grads(False)
        ctx.dtypes = [None if part is None else part.dtype for part in (x, residual, bias)]
        ctx.rms, ctx.tile = rms, tile
        if not adds:  # an input must not be returned as an output
            stream = x.new_empty(0)
            ctx.mark_non_differentiable(stream)
        return out, stream

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_out: Tensor | None, grad_stream: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, stream, gate, weight, mean, rstd = ctx.saved_tensors
        x_dtype, residual_dtype, bias_dtype = ctx.dtypes
        grad_out = torch.zeros_like(stream) if grad_out is None else grad_out.contiguous()
        grad_stream = _contiguous(grad_stream)
        samples, rows = mean.shape
        size, tile = stream.shape[-1], ctx.tile
        spread = max(1, num_programs(stream.device) // max(1, samples))
        programs = max(1, min(spread, triton.cdiv(rows, tile)))
        grad_x = torch.empty_like(stream, dtype=x_dtype)
        grad_residual = None
        if residual_dtype is not None:
            grad_residual = torch.empty_like(stream, dtype=residual_dtype)
        sums = weight.new_zeros(3, samples, programs, size, dtype=torch.float32)
        block = power_of_two(size)
        if stream.numel():
            _backward[(programs, samples)](
                *(grad_out, grad_stream, x, stream, gate, weight, mean, rstd),
                *(grad_x, grad_residual, sums[0], sums[1], sums[2], rows, size),
                RMS=ctx.rms,
                HAS_GRAD_STREAM=grad_stream is not None,
                HAS_RESIDUAL=grad_residual is not None,
                HAS_GATE=gate is not None,
                HAS_BIAS=bias_dtype is not None,
                ROWS=tile,
                BLOCK_D=block,
                num_warps=warps_for(block * tile),
            )
        grad_weight, grad_bias, grad_gate = sums.sum(2).view(3, *weight.shape)
        return (
            grad_x,
            grad_residual,
            None if gate is None else grad_gate.to(gate.dtype),
            grad_weight.to(weight.dtype),
            None if bias_dtype is None else grad_bias.to(bias_dtype),
            None,
            None,
        )


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _stream_dtype(x: Tensor, residual: Tensor | None) -> torch.dtype:
    return x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
