"""Rotary position embedding: 1-D in halves or interleaved pairs, partial, and 2-D."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels import reference
from glm_kernels.registry import dispatch, register


def rope_tables(
    position_ids: Tensor, rotary_dim: int, theta: float, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines that `apply_rope` takes.

    Args:
        position_ids: [..., T] integers.
        rotary_dim: dims of a head that are rotated, even.
        theta: base of the frequencies, 10000 in most models.
        dtype: dtype of the tables.

    Returns:
        (cos, sin), each [..., T, rotary_dim / 2].

    Raises:
        ValueError: rotary_dim is odd or not positive.
    """
    if rotary_dim <= 0 or rotary_dim % 2:
        raise ValueError(f"rotary_dim={rotary_dim} must be positive and even: dims turn in pairs")
    device = position_ids.device
    exponent_R = torch.arange(0, rotary_dim, 2, device=device, dtype=torch.float32) / rotary_dim
    inverse_frequency_R = 1.0 / theta**exponent_R
    angle_TR = position_ids[..., None].float() * inverse_frequency_R
    return angle_TR.cos().to(dtype), angle_TR.sin().to(dtype)


def apply_rope(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, interleaved: bool = False
) -> Tensor:
    """Rotate the first 2R dims of each head by its position; leave the rest as it is.

    Args:
        x_BTNH: [B, T, N, H] queries or keys, H >= 2R.
        cos_BTR: [B, T, R] or anything that broadcasts to it, from `rope_tables`.
        sin_BTR: as cos_BTR.
        interleaved: pairs are dims (2i, 2i + 1) when True, (i, i + R) when False (NeoX).

    Returns:
        [B, T, N, H], dtype of x.
    """
    out: Tensor = dispatch("apply_rope", x_BTNH.device.type)(x_BTNH, cos_BTR, sin_BTR, interleaved)
    return out


def apply_rope_2d(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, block_cos_BTR: Tensor, block_sin_BTR: Tensor
) -> Tensor:
    """Rotate the first half of each head by position, the second half by block position.

    Args:
        x_BTNH: [B, T, N, H] queries or keys, H = 4R.
        cos_BTR: [B, T, R] tables of the positions, with rotary_dim = H / 2.
        sin_BTR: as cos_BTR.
        block_cos_BTR: [B, T, R] tables of the block positions.
        block_sin_BTR: as block_cos_BTR.

    Returns:
        [B, T, N, H], dtype of x.
    """
    out: Tensor = dispatch("apply_rope_2d", x_BTNH.device.type)(
        x_BTNH, cos_BTR, sin_BTR, block_cos_BTR, block_sin_BTR
    )
    return out


@register("apply_rope", "torch")
def _apply_rope(x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, interleaved: bool) -> Tensor:
    if torch.compiler.is_compiling() or cos_BTR.requires_grad or sin_BTR.requires_grad:
        return reference.apply_rope(x_BTNH, cos_BTR, sin_BTR, interleaved)
    out: Tensor = _Rotation.apply(x_BTNH, interleaved, cos_BTR, sin_BTR)
    return out


@register("apply_rope_2d", "torch")
def _apply_rope_2d(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, block_cos_BTR: Tensor, block_sin_BTR: Tensor
) -> Tensor:
    tables = (cos_BTR, sin_BTR, block_cos_BTR, block_sin_BTR)
    if torch.compiler.is_compiling() or any(table.requires_grad for table in tables):
        return reference.apply_rope_2d(x_BTNH, *tables)
    out: Tensor = _Rotation.apply(x_BTNH, False, *tables)
    return out


class _Rotation(torch.autograd.Function):
    """Rotates consecutive parts of the head, one for each pair of tables.

    Saves nothing but the tables: the gradient of a rotation is the opposite rotation.
    """

    @staticmethod
    def forward(ctx: Any, x_BTNH: Tensor, interleaved: bool, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(*tables)
        ctx.interleaved = interleaved
        return _rotate(x_BTNH, interleaved, tables, sign=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTNH: Tensor) -> tuple[Tensor | None, ...]:
        tables = ctx.saved_tensors
        grad = _rotate(grad_BTNH, ctx.interleaved, tables, sign=-1)
        return (grad, None, *(None for _ in tables))


def _rotate(x_BTNH: Tensor, interleaved: bool, tables: tuple[Tensor, ...], sign: int) -> Tensor:
    """Rotate by the tables' angles (sign 1) or back (sign -1), without a temporary tensor."""
    dtype = torch.promote_types(x_BTNH.dtype, tables[0].dtype)
    x = x_BTNH.to(dtype)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    start = 0
    for cos_BTR, sin_BTR in zip(tables[::2], tables[1::2], strict=True):
        size = 2 * cos_BTR.shape[-1]
        part, out_part = x[..., start : start + size], out[..., start : start + size]
        cos, sin = cos_BTR.unsqueeze(-2), sin_BTR.unsqueeze(-2)
        (a, b), (out_a, out_b) = _pairs(part, interleaved), _pairs(out_part, interleaved)
        torch.mul(a, cos, out=out_a).addcmul_(b, sin, value=-sign)
        torch.mul(b, cos, out=out_b).addcmul_(a, sin, value=sign)
        start += size
    if start < x.shape[-1]:
        out[..., start:] = x[..., start:]
    return out.to(x_BTNH.dtype)


def _pairs(x: Tensor, interleaved: bool) -> tuple[Tensor, Tensor]:
    if interleaved:
        return x[..., 0::2], x[..., 1::2]
    first, second = x.chunk(2, dim=-1)
    return first, second
