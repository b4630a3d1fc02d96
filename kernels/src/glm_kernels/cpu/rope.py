"""Rotary embedding on the CPU, compiled: one pass over memory, nothing kept but the tables."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from glm_kernels.cpu.call import (
    DTYPES,
    Form,
    Operation,
    address,
    call,
    compiled,
    empty_beside,
    form_of,
    formula,
)

_MOST_HEAD_DIM = 1024
"""kMostRopeDim in native/rotary.h."""


@compiled("apply_rope")
def apply_rope(x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, interleaved: bool) -> Tensor:
    """`glm_kernels.reference.apply_rope`."""
    form = _form(x_BTNH, cos_BTR, sin_BTR)
    if form is Form.formula:
        plain: Tensor = formula("apply_rope")(x_BTNH, cos_BTR, sin_BTR, interleaved)
        return plain
    out: Tensor = _ROTATE(form, x_BTNH, cos_BTR, sin_BTR, None, None, interleaved, False)
    return out


@compiled("apply_rope_2d")
def apply_rope_2d(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, block_cos_BTR: Tensor, block_sin_BTR: Tensor
) -> Tensor:
    """`glm_kernels.reference.apply_rope_2d`."""
    tables = (cos_BTR, sin_BTR, block_cos_BTR, block_sin_BTR)
    form = _form(x_BTNH, *tables)
    if form is Form.formula:
        plain: Tensor = formula("apply_rope_2d")(x_BTNH, *tables)
        return plain
    out: Tensor = _ROTATE(form, x_BTNH, *tables, False, False)
    return out


def _form(x_BTNH: Tensor, *tables: Tensor) -> Form:
    """Return the form for tensors of which `glm_kernels.rope` has checked the shapes."""
    if x_BTNH.dim() != 4 or x_BTNH.shape[-1] > _MOST_HEAD_DIM:
        return Form.formula
    for table in tables:
        if table.requires_grad or not 2 <= table.dim() <= 3 or table.shape[-1] == 0:
            return Form.formula
    return form_of(x_BTNH, *tables)


def _rotate(
    x_BTNH: Tensor,
    cos_BTR: Tensor,
    sin_BTR: Tensor,
    block_cos_BTR: Tensor | None,
    block_sin_BTR: Tensor | None,
    interleaved: bool,
    back: bool,
) -> Tensor:
    batch, length, heads, head_dim = x_BTNH.shape
    x = x_BTNH if x_BTNH.stride(3) == 1 else x_BTNH.contiguous()
    out_BTNH = empty_beside(x, x.dtype)
    cos, sin, *strides = _table(cos_BTR, sin_BTR)
    block_cos, block_sin, *block_strides = None, None, 0, 0
    if block_cos_BTR is not None and block_sin_BTR is not None:
        block_cos, block_sin, *block_strides = _table(block_cos_BTR, block_sin_BTR)
    call(
        "rope",
        x.data_ptr(),
        out_BTNH.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        address(block_cos),
        address(block_sin),
        *x.stride()[:3],
        *strides,
        *block_strides,
        batch,
        length,
        heads,
        head_dim,
        cos.shape[-1],
        -1.0 if back else 1.0,
        interleaved,
        DTYPES[x.dtype],
    )
    return out_BTNH


def _table(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, int, int]:
    """Return both as fp32 of the same strides, and those of rows and columns: 0 where alike."""
    cos, sin = cos.float(), sin.float()
    if cos.stride(-1) != 1 or cos.stride() != sin.stride():
        cos, sin = cos.contiguous(), sin.contiguous()
    column = cos.stride(-2) if cos.shape[-2] > 1 else 0
    row = cos.stride(0) if cos.dim() == 3 and cos.shape[0] > 1 else 0
    return cos, sin, row, column


def _fake(x_BTNH: Tensor, *_: Any) -> Tensor:
    return empty_beside(x_BTNH, x_BTNH.dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *tables, ctx.interleaved, ctx.back = inputs
    ctx.save_for_backward(*tables)


def _backward(ctx: Any, grad_BTNH: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient of a rotation is the opposite rotation."""
    tables = ctx.saved_tensors  # read once: activation checkpointing allows no second time
    grad = _ROTATE.of_gradients(grad_BTNH, *tables, ctx.interleaved, not ctx.back)
    return grad, None, None, None, None, None, None


_ROTATE = Operation("rotate", _rotate, _fake, _backward, _keep)
