"""Rotary embedding on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels import reference
from glm_kernels.cpu.blocks import blocks
from glm_kernels.registry import CPU_PRIORITY, register


@register("apply_rope", "cpu", devices={"cpu"}, priority=CPU_PRIORITY, traceable=False)
def apply_rope(x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, interleaved: bool) -> Tensor:
    """`glm_kernels.reference.apply_rope`, saving nothing but the tables."""
    if cos_BTR.requires_grad or sin_BTR.requires_grad or (interleaved and x_BTNH.shape[-1] % 2):
        return reference.apply_rope(x_BTNH, cos_BTR, sin_BTR, interleaved)
    out: Tensor = _Rotation.apply(x_BTNH, interleaved, cos_BTR, sin_BTR)
    return out


@register("apply_rope_2d", "cpu", devices={"cpu"}, priority=CPU_PRIORITY, traceable=False)
def apply_rope_2d(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, block_cos_BTR: Tensor, block_sin_BTR: Tensor
) -> Tensor:
    """`glm_kernels.reference.apply_rope_2d`, saving nothing but the tables."""
    tables = (cos_BTR, sin_BTR, block_cos_BTR, block_sin_BTR)
    if any(table.requires_grad for table in tables):
        return reference.apply_rope_2d(x_BTNH, *tables)
    out: Tensor = _Rotation.apply(x_BTNH, False, *tables)
    return out


class _Rotation(torch.autograd.Function):
    """Rotates consecutive parts of the head, one for each pair of tables.

    The gradient of a rotation is the opposite rotation.
    """

    @staticmethod
    def forward(ctx: Any, x_BTNH: Tensor, interleaved: bool, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(*tables)
        ctx.interleaved = interleaved
        return _rotate(x_BTNH, interleaved, tables, sign=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTNH: Tensor) -> tuple[Tensor | None, ...]:
        tables = ctx.saved_tensors  # read once: activation checkpointing allows no second time
        grad = _rotate(grad_BTNH, ctx.interleaved, tables, sign=-1)
        return (grad, None, *(None for _ in tables))


def _rotate(x_BTNH: Tensor, interleaved: bool, tables: tuple[Tensor, ...], sign: int) -> Tensor:
    """Rotate by the tables' angles (sign 1) or back (sign -1), block of tokens by block.

    The result lies in memory as [B, N, T, H], as attention reads it; the loops over its tokens are
    then long. Returns a [B, T, N, H] view.
    """
    dtype = torch.promote_types(torch.promote_types(x_BTNH.dtype, tables[0].dtype), torch.float32)
    x_BNTH = x_BTNH.transpose(-3, -2)
    length = x_BNTH.shape[-2]
    angles = [
        (cos.to(dtype).unsqueeze(-3), (sign * sin).to(dtype).unsqueeze(-3))
        for cos, sin in zip(tables[::2], tables[1::2], strict=True)
    ]
    turn = _turn_pairs if interleaved else _turn_halves
    out_BNTH = torch.empty(x_BNTH.shape, dtype=x_BTNH.dtype)
    for tokens in blocks(length, x_BTNH.numel() // max(1, length)):
        x, out = x_BNTH[..., tokens, :].to(dtype), out_BNTH[..., tokens, :]
        turned = out if out.dtype == dtype else torch.empty(x.shape, dtype=dtype)
        start = 0
        for cos, sin in angles:
            part = slice(start, start + 2 * cos.shape[-1])
            turn(x[..., part], cos[..., tokens, :], sin[..., tokens, :], turned[..., part])
            start = part.stop
        turned[..., start:] = x[..., start:]
        if turned is not out:
            out.copy_(turned)
    return out_BNTH.transpose(-3, -2)


def _turn_halves(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    (a, b), (out_a, out_b) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=out_a).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=out_b).addcmul_(a, sin)


def _turn_pairs(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """A rotation of pairs is a product of complex numbers, one vectorised pass."""
    if x.stride(-1) != 1 or any(stride % 2 for stride in (x.storage_offset(), *x.stride()[:-1])):
        x = x.clone(memory_format=torch.contiguous_format)  # complex numbers need even strides
    angle = torch.complex(cos.contiguous(), sin.contiguous())
    torch.mul(_as_complex(x), angle, out=_as_complex(out))


def _as_complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.view(*x.shape[:-1], x.shape[-1] // 2, 2))
