"""Group norm and the SiLU behind it, forward and backward.

    n = (x - mean) / sqrt(var + eps);  z = n * weight + bias;  out = z sigmoid(z)
    dz = dout sigmoid(z) (1 + z (1 - sigmoid(z)));  g = dz * weight
    dx = (g - mean(g) - n mean(g n)) / sqrt(var + eps)

A program has one group of one sample: some channels at all positions, which it reads in tiles of
[channels, positions] by their strides, so that both memory formats are read along memory.
Statistics are in fp32. Sources: arXiv 1803.08494 (group norm), 1702.03118 (SiLU).

Letters: B samples, C channels, P positions, E channels of a group.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.triton.launch import power_of_two, warps_for

TILE = 4096
"""Elements that a program holds at a time."""


def group_norm_silu(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`glm_kernels.group_norm_silu`: [B, C, ...], weight and bias [C] or [B, C]."""
    out: Tensor = _GroupNormSilu.apply(x, num_groups, weight, bias, eps)
    return out


@triton.jit
def _tile(group, E, P, stride_c, stride_p, first, BLOCK_E: tl.constexpr, BLOCK_P: tl.constexpr):
    """Return offsets in a sample of a tile of a group, and which of them are inside it."""
    e, p = tl.arange(0, BLOCK_E), first + tl.arange(0, BLOCK_P)
    c = (group * E + e).to(tl.int64)
    at = c[:, None] * stride_c + p[None, :] * stride_p
    return at, (e < E)[:, None] & (p < P)[None, :]


@triton.jit
def _forward(
    x,
    weight,
    bias,
    out,
    mean,
    rstd,
    E,
    P,
    stride_b,
    stride_c,
    stride_p,
    weight_stride_b,
    eps,
    BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    b, group, groups = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    x += b * stride_b
    out += b * stride_b
    sums = tl.zeros([BLOCK_E, BLOCK_P], tl.float32)
    for first in range(0, P, BLOCK_P):
        at, inside = _tile(group, E, P, stride_c, stride_p, first, BLOCK_E, BLOCK_P)
        sums += tl.load(x + at, inside, other=0.0).to(tl.float32)
    average = tl.sum(sums) / (E * P)
    sums = tl.zeros([BLOCK_E, BLOCK_P], tl.float32)
    for first in range(0, P, BLOCK_P):
        at, inside = _tile(group, E, P, stride_c, stride_p, first, BLOCK_E, BLOCK_P)
        value = tl.load(x + at, inside, other=0.0).to(tl.float32) - average
        sums += tl.where(inside, value * value, 0.0)
    scale = tl.rsqrt(tl.sum(sums) / (E * P) + eps)
    tl.store(mean + b * groups + group, average)
    tl.store(rstd + b * groups + group, scale)

    e = tl.arange(0, BLOCK_E)
    own = b * weight_stride_b + group * E + e
    weights = tl.load(weight + own, e < E, other=0.0).to(tl.float32)[:, None] * scale
    biases = tl.load(bias + own, e < E, other=0.0).to(tl.float32)[:, None] - average * weights
    for first in range(0, P, BLOCK_P):
        at, inside = _tile(group, E, P, stride_c, stride_p, first, BLOCK_E, BLOCK_P)
        value = tl.load(x + at, inside, other=0.0).to(tl.float32) * weights + biases
        value = value * tl.sigmoid(value)
        tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit
def _grad_of_norm(grad, x, at, inside, average, scale, weights, biases):
    """Return n and dz of a tile."""
    normed = (tl.load(x + at, inside, other=0.0).to(tl.float32) - average) * scale
    normed = tl.where(inside, normed, 0.0)
    z = normed * weights + biases
    share = tl.sigmoid(z)
    slope = share * (1 + z * (1 - share))
    return normed, tl.load(grad + at, inside, other=0.0).to(tl.float32) * slope


@triton.jit
def _backward(
    grad,
    x,
    weight,
    bias,
    mean,
    rstd,
    grad_x,
    grad_weight,
    grad_bias,
    E,
    P,
    stride_b,
    stride_c,
    stride_p,
    weight_stride_b,
    BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write the gradient of x, and of this sample's weight and bias."""
    b, group, groups = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    x += b * stride_b
    grad += b * stride_b
    grad_x += b * stride_b
    average = tl.load(mean + b * groups + group)
    scale = tl.load(rstd + b * groups + group)
    e = tl.arange(0, BLOCK_E)
    own = b * weight_stride_b + group * E + e
    weights = tl.load(weight + own, e < E, other=0.0).to(tl.float32)[:, None]
    biases = tl.load(bias + own, e < E, other=0.0).to(tl.float32)[:, None]
    sum_weight = tl.zeros([BLOCK_E], tl.float32)
    sum_bias = tl.zeros([BLOCK_E], tl.float32)
    for first in range(0, P, BLOCK_P):
        at, inside = _tile(group, E, P, stride_c, stride_p, first, BLOCK_E, BLOCK_P)
        normed, grad_z = _grad_of_norm(grad, x, at, inside, average, scale, weights, biases)
        sum_weight += tl.sum(grad_z * normed, 1)
        sum_bias += tl.sum(grad_z, 1)
    own = b * groups * E + group * E + e
    tl.store(grad_weight + own, sum_weight, e < E)
    tl.store(grad_bias + own, sum_bias, e < E)
    projection = tl.sum(sum_weight[:, None] * weights) / (E * P)
    constant = tl.sum(sum_bias[:, None] * weights) / (E * P)
    for first in range(0, P, BLOCK_P):
        at, inside = _tile(group, E, P, stride_c, stride_p, first, BLOCK_E, BLOCK_P)
        normed, grad_z = _grad_of_norm(grad, x, at, inside, average, scale, weights, biases)
        total = (grad_z * weights - constant - normed * projection) * scale
        tl.store(grad_x + at, total.to(grad_x.dtype.element_ty), inside)


class _GroupNormSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        x, strides = _with_one_stride(x)
        weight, bias = weight.contiguous(), bias.contiguous()
        out = torch.empty_like(x)
        mean, rstd = x.new_empty(2, x.shape[0], num_groups, dtype=torch.float32)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.sizes = (x.shape[1] // num_groups, math.prod(x.shape[2:]), *strides)
        if x.numel():
            _forward[x.shape[0], num_groups](
                *(x, weight, bias, out, mean, rstd, *ctx.sizes, _sample_stride(weight), eps),
                **_blocks(ctx.sizes),
            )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad = torch.empty_like(x, dtype=grad.dtype).copy_(grad)  # in the memory format of x
        sums = weight.new_zeros(2, *x.shape[:2], dtype=torch.float32)
        if x.numel():
            _backward[tuple(mean.shape)](
                *(grad, x, weight, bias, mean, rstd, grad_x, sums[0], sums[1]),
                *(*ctx.sizes, _sample_stride(weight)),
                **_blocks(ctx.sizes),
            )
        if weight.dim() == 1:
            sums = sums.sum(1)
        return grad_x, None, sums[0].to(weight.dtype), sums[1].to(bias.dtype), None


def _with_one_stride(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Return x dense, in its memory format, and the strides of samples, channels and positions."""
    C, P = x.shape[1], math.prod(x.shape[2:])
    for channels_last in (torch.channels_last, torch.channels_last_3d):
        fits = x.dim() == (4 if channels_last is torch.channels_last else 5)
        if fits and not x.is_contiguous() and x.is_contiguous(memory_format=channels_last):
            return x, (C * P, 1, C)
    return x.contiguous(), (C * P, P, 1)


def _sample_stride(weight: Tensor) -> int:
    return weight.shape[1] if weight.dim() == 2 else 0


def _blocks(sizes: tuple[int, ...]) -> dict[str, int]:
    """Return how many channels and positions a tile has."""
    channels = power_of_two(sizes[0])
    positions = min(power_of_two(sizes[1]), max(1, TILE // channels))
    return {
        "BLOCK_E": channels,
        "BLOCK_P": positions,
        "num_warps": min(8, warps_for(channels * positions)),
    }
