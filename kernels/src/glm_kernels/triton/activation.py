"""gelu, geglu and swiglu, forward and backward, in one pass over memory each.

Every form but the exact gelu is ``x sigmoid(g(x))``, which is how they are computed here:

    tanh   g = 2 sqrt(2/pi) (x + 0.044715 x^3)    since (1 + tanh u) / 2 = sigmoid(2u)
    quick  g = 1.702 x
    silu   g = x

The gated ops are ``act(one half) * other half`` of the last dimension. Arithmetic is in fp32.
Sources: arXiv 1606.08415 (gelu), 2002.05202 (gated units).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1024

TANH_SCALE: tl.constexpr = tl.constexpr(2 * math.sqrt(2 / math.pi))
TANH_CUBE: tl.constexpr = tl.constexpr(0.044715)
QUICK: tl.constexpr = tl.constexpr(1.702)
LOWEST: tl.constexpr = tl.constexpr(-80.0)  # sigmoid is 0 from here on; exp(80) is finite
INVERSE_SQRT2: tl.constexpr = tl.constexpr(1 / math.sqrt(2))
DENSITY: tl.constexpr = tl.constexpr(1 / math.sqrt(2 * math.pi))


def gelu(x: Tensor, approximate: str) -> Tensor:
    """`glm_kernels.gelu`: any shape, dtypes fp32, bf16, fp16."""
    out: Tensor = _Activation.apply(x, approximate)
    return out


def geglu(x_2F: Tensor, activated: str, approximate: str) -> Tensor:
    """`glm_kernels.geglu`: [..., 2F] to [..., F]."""
    out: Tensor = _Gated.apply(x_2F, approximate, activated == "second")
    return out


def swiglu(x_2F: Tensor) -> Tensor:
    """`glm_kernels.swiglu`: [..., 2F] to [..., F]."""
    out: Tensor = _Gated.apply(x_2F, "silu", False)
    return out


@triton.jit
def _value_and_slope(x, FORM: tl.constexpr):
    """Return act(x) and act'(x)."""
    if FORM == "none":
        share = 0.5 * (1 + tl.math.erf(x * INVERSE_SQRT2))
        slope = share + x * DENSITY * tl.exp(-0.5 * x * x)
    else:
        if FORM == "tanh":
            inner = TANH_SCALE * (x + TANH_CUBE * x * x * x)
            inner_slope = TANH_SCALE * (1 + 3 * TANH_CUBE * x * x)
        elif FORM == "quick":
            inner = QUICK * x
            inner_slope = QUICK
        else:
            inner = x
            inner_slope = 1.0
        # sigmoid(u) = 1 / (1 + e) with e = exp(-u); 1 - sigmoid(u) = e sigmoid(u) keeps its bits
        decay = tl.exp(-tl.maximum(inner, LOWEST))
        share = 1 / (1 + decay)
        slope = share + x * share * (decay * share) * inner_slope
    return x * share, slope


@triton.jit
def _activation(x, out, size, FORM: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value, _ = _value_and_slope(tl.load(x + at, at < size, other=0.0).to(tl.float32), FORM)
    tl.store(out + at, value.to(out.dtype.element_ty), at < size)


@triton.jit
def _activation_grad(grad, x, grad_x, size, FORM: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _, slope = _value_and_slope(tl.load(x + at, at < size, other=0.0).to(tl.float32), FORM)
    total = tl.load(grad + at, at < size, other=0.0).to(tl.float32) * slope
    tl.store(grad_x + at, total.to(grad_x.dtype.element_ty), at < size)


@triton.jit
def _places(F, SECOND: tl.constexpr, BLOCK: tl.constexpr):
    """Return where a program's block of the gate, the value and the result stand."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = row * 2 * F + f
    if SECOND:
        return first + F, first, row * F + f, f < F
    return first, first + F, row * F + f, f < F


@triton.jit
def _gated(x, out, F, FORM: tl.constexpr, SECOND: tl.constexpr, BLOCK: tl.constexpr):
    gate_at, value_at, out_at, inside = _places(F, SECOND, BLOCK)
    gate = tl.load(x + gate_at, inside, other=0.0).to(tl.float32)
    activated, _ = _value_and_slope(gate, FORM)
    result = activated * tl.load(x + value_at, inside, other=0.0).to(tl.float32)
    tl.store(out + out_at, result.to(out.dtype.element_ty), inside)


@triton.jit
def _gated_grad(grad, x, grad_x, F, FORM: tl.constexpr, SECOND: tl.constexpr, BLOCK: tl.constexpr):
    gate_at, value_at, out_at, inside = _places(F, SECOND, BLOCK)
    gate = tl.load(x + gate_at, inside, other=0.0).to(tl.float32)
    value = tl.load(x + value_at, inside, other=0.0).to(tl.float32)
    total = tl.load(grad + out_at, inside, other=0.0).to(tl.float32)
    activated, slope = _value_and_slope(gate, FORM)
    tl.store(grad_x + gate_at, (total * value * slope).to(grad_x.dtype.element_ty), inside)
    tl.store(grad_x + value_at, (total * activated).to(grad_x.dtype.element_ty), inside)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, form: str) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        ctx.form = form
        out = torch.empty_like(x)
        if x.numel():
            _activation[_blocks(x)](x, out, x.numel(), FORM=form, BLOCK=BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        if x.numel():
            _activation_grad[_blocks(x)](
                grad.contiguous(), x, grad_x, x.numel(), FORM=ctx.form, BLOCK=BLOCK
            )
        return grad_x, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_2F: Tensor, form: str, second: bool) -> Tensor:
        x_2F = x_2F.contiguous()
        ctx.save_for_backward(x_2F)
        ctx.form, ctx.second = form, second
        out_F = x_2F.new_empty(*x_2F.shape[:-1], x_2F.shape[-1] // 2)
        if out_F.numel():
            _gated[_rows(out_F)](
                x_2F, out_F, out_F.shape[-1], FORM=form, SECOND=second, BLOCK=BLOCK
            )
        return out_F

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_F: Tensor) -> tuple[Tensor | None, ...]:
        (x_2F,) = ctx.saved_tensors
        grad_x_2F = torch.empty_like(x_2F)
        if grad_F.numel():
            _gated_grad[_rows(grad_F)](
                *(grad_F.contiguous(), x_2F, grad_x_2F, grad_F.shape[-1]),
                FORM=ctx.form,
                SECOND=ctx.second,
                BLOCK=BLOCK,
            )
        return grad_x_2F, None, None


def _blocks(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


def _rows(out_F: Tensor) -> tuple[int, int]:
    size = out_F.shape[-1]
    return out_F.numel() // size, triton.cdiv(size, BLOCK)
