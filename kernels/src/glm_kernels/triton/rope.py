"""Rotary position embedding, 1-D in halves or interleaved pairs, and 2-D.

    (a, b) -> (a cos - b sin, b cos + a sin)    for each pair (a, b) of a head

The backward is the rotation by the opposite angle. Source: arXiv 2104.09864, eq. 34.

Letters: B batch, T tokens, N heads, H head dim, R pairs with an angle each.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.triton.launch import power_of_two

TILE = 2048
"""Pairs that a program holds at a time."""


def apply_rope(x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, interleaved: bool) -> Tensor:
    """`glm_kernels.apply_rope`: one rotated part of 2R dims, the rest of the head copied."""
    out: Tensor = _Rope.apply(x_BTNH, interleaved, cos_BTR, sin_BTR)
    return out


def apply_rope_2d(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, block_cos_BTR: Tensor, block_sin_BTR: Tensor
) -> Tensor:
    """`glm_kernels.apply_rope_2d`: two rotated halves of the head, each with its own angles."""
    out: Tensor = _Rope.apply(x_BTNH, False, cos_BTR, sin_BTR, block_cos_BTR, block_sin_BTR)
    return out


@triton.jit
def _rotate(
    x,
    out,
    cos,
    sin,
    x_stride_b,
    x_stride_t,
    x_stride_n,
    table_stride_b,
    table_stride_t,
    T,
    N,
    H,
    R,
    base,
    INTERLEAVED: tl.constexpr,
    BACKWARD: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    """Rotate dims base .. base + 2R of some heads of a token; copy those behind if BLOCK_REST."""
    token = tl.program_id(0).to(tl.int64)
    b, t = token // T, token % T
    n = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    x_head = (x + b * x_stride_b + t * x_stride_t + n * x_stride_n)[:, None]
    out_head = (out + (token * N + n) * H)[:, None]
    r = tl.arange(0, BLOCK_R)
    table = b * table_stride_b + t * table_stride_t + r
    c = tl.load(cos + table, r < R, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + table, r < R, other=0.0).to(tl.float32)[None, :]
    if BACKWARD:
        s = -s
    if INTERLEAVED:
        first = (base + 2 * r)[None, :]
        second = first + 1
    else:
        first = (base + r)[None, :]
        second = first + R
    inside = (n < N)[:, None] & (r < R)[None, :]
    a = tl.load(x_head + first, inside, other=0.0).to(tl.float32)
    b = tl.load(x_head + second, inside, other=0.0).to(tl.float32)
    tl.store(out_head + first, (a * c - b * s).to(out.dtype.element_ty), inside)
    tl.store(out_head + second, (b * c + a * s).to(out.dtype.element_ty), inside)
    if BLOCK_REST > 0:
        d = (base + 2 * R + tl.arange(0, BLOCK_REST))[None, :]
        inside = (n < N)[:, None] & (d < H)
        tl.store(out_head + d, tl.load(x_head + d, inside), inside)


class _Rope(torch.autograd.Function):
    """`tables` are the cosines and sines of one part of the head, or of each of its halves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, interleaved: bool, *tables: Tensor) -> Tensor:
        angles = [_by_token(table, x) for table in tables]
        ctx.save_for_backward(*angles)
        ctx.interleaved = interleaved
        return _launch(x, angles, interleaved, backward=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        angles = list(ctx.saved_tensors)
        grad_x = _launch(grad, angles, ctx.interleaved, backward=True)
        return grad_x, None, *(None for _ in angles)


def _by_token(table: Tensor, x: Tensor) -> Tensor:
    """Return a table as [B, T, R] (all but the heads' dims flattened into T where x is not 4-D)."""
    table = table.expand(*x.shape[:-2], table.shape[-1])
    if table.dim() != 3:
        table = table.reshape(1, math.prod(table.shape[:-1]), table.shape[-1])
    return table if table.stride(-1) == 1 else table.contiguous()


def _launch(x: Tensor, tables: list[Tensor], interleaved: bool, backward: bool) -> Tensor:
    x_BTNH = x if x.dim() == 4 else x.reshape(1, math.prod(x.shape[:-2]), *x.shape[-2:])
    if x_BTNH.stride(-1) != 1:
        x_BTNH = x_BTNH.contiguous()
    B, T, N, H = x_BTNH.shape
    out = torch.empty(x_BTNH.shape, dtype=x.dtype, device=x.device)
    rotated = sum(2 * table.shape[-1] for table in tables[::2])
    base = 0
    for cos, sin in zip(tables[::2], tables[1::2], strict=True):
        R = cos.shape[-1]
        rest = H - rotated if base + 2 * R == rotated else 0
        block = power_of_two(R)
        heads = min(power_of_two(N), max(1, TILE // block))
        if out.numel():
            _rotate[(B * T, triton.cdiv(N, heads))](
                *(x_BTNH, out, cos, sin, *x_BTNH.stride()[:3], *cos.stride()[:2]),
                *(T, N, H, R, base),
                INTERLEAVED=interleaved,
                BACKWARD=backward,
                HEADS=heads,
                BLOCK_R=block,
                BLOCK_REST=power_of_two(rest) if rest else 0,
            )
        base += 2 * R
    return out.view(x.shape)
