"""Normalisations on the CPU, compiled: one pass over memory forward, one backward."""

from __future__ import annotations

from typing import Any

import torch
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
    rows_of,
)

_RMS_NORM, _LAYER_NORM = 0, 1
"""Their numbers in native/decode_abi.h."""
_ROWS_PER_PART, _MOST_PARTS = 64, 16
"""Rows that sum their gradients of the weight together, at least, and how many such sums."""


@compiled("rms_norm")
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`glm_kernels.reference.rms_norm`."""
    form = _form(x, None, weight, None)
    if form is Form.direct:
        return _run(x, None, weight, None, eps, False)[0]
    if form is Form.formula:
        plain: Tensor = formula("rms_norm")(x, weight, eps)
        return plain
    out: Tensor = _NORM(form, x, weight, None, eps, False)[0]
    return out


@compiled("layer_norm")
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """`glm_kernels.reference.layer_norm`."""
    form = _form(x, None, weight, bias)
    if form is Form.direct:
        return _run(x, None, weight, bias, eps, True)[0]
    if form is Form.formula:
        plain: Tensor = formula("layer_norm")(x, weight, bias, eps)
        return plain
    out: Tensor = _NORM(form, x, weight, bias, eps, True)[0]
    return out


@compiled("add_rms_norm")
def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`glm_kernels.reference.add_rms_norm`."""
    form = _form(x, residual, weight, None)
    if form is Form.direct:
        return _run(x, residual, weight, None, eps, False)
    if form is Form.formula:
        plain: tuple[Tensor, Tensor] = formula("add_rms_norm")(x, residual, weight, eps)
        return plain
    out, stream, *_ = _ADD_NORM(form, x, residual, weight, None, eps, False)
    return out, stream


@compiled("add_layer_norm")
def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """`glm_kernels.reference.add_layer_norm`."""
    form = _form(x, residual, weight, bias)
    if form is Form.direct:
        return _run(x, residual, weight, bias, eps, True)
    if form is Form.formula:
        plain: tuple[Tensor, Tensor] = formula("add_layer_norm")(x, residual, weight, bias, eps)
        return plain
    out, stream, *_ = _ADD_NORM(form, x, residual, weight, bias, eps, True)
    return out, stream


def _form(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None) -> Form:
    """Return the form for tensors of which `glm_kernels.norm` has checked the shapes."""
    if x.shape[-1] == 0 or (bias is not None and bias.dtype != weight.dtype):
        return Form.formula
    return form_of(x, residual, weight, bias)


def _run(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    mean: Tensor | None = None,
    inverse: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the norm and what was normed, x or residual + x; write mean and inverse if given."""
    rows, stride = rows_of(x)
    stream, residual_stride, residual_dtype = x, 0, x.dtype
    if residual is not None:
        residual_dtype = residual.dtype
        residual, residual_stride = rows_of(residual)
        stream = empty_beside(x, _wider(x.dtype, residual_dtype))
    out = empty_beside(x, stream.dtype if centred else _wider(stream.dtype, weight.dtype))
    weight = weight.contiguous()
    if bias is not None:
        bias = bias.contiguous()
    columns = x.shape[-1]
    call(
        "norm",
        rows.data_ptr(),
        address(residual),
        weight.data_ptr(),
        address(bias),
        out.data_ptr(),
        stream.data_ptr(),
        address(mean),
        address(inverse),
        stride,
        residual_stride,
        x.numel() // columns,
        columns,
        eps,
        _LAYER_NORM if centred else _RMS_NORM,
        DTYPES[x.dtype],
        DTYPES[residual_dtype],
        DTYPES[stream.dtype],
        DTYPES[weight.dtype],
        DTYPES[out.dtype],
    )
    return out, stream


def _wider(dtype: torch.dtype, other: torch.dtype) -> torch.dtype:
    return dtype if dtype == other else torch.promote_types(dtype, other)


def _statistics(x: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """Return empty tensors for the mean and 1 / deviation of each row; RMS norm has no mean."""
    shape = x.shape[:-1]
    mean = x.new_empty(shape if centred else (0,), dtype=torch.float32)
    return mean, x.new_empty(shape, dtype=torch.float32)


def _norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    mean, inverse = _statistics(x, centred)
    out, _ = _run(x, None, weight, bias, eps, centred, mean if centred else None, inverse)
    return out, mean, inverse


def _norm_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    out = empty_beside(x, x.dtype if centred else _wider(x.dtype, weight.dtype))
    return out, *_statistics(x, centred)


def _add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean, inverse = _statistics(x, centred)
    given = mean if centred else None
    return *_run(x, residual, weight, bias, eps, centred, given, inverse), mean, inverse


def _add_norm_fake(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    stream = empty_beside(x, _wider(x.dtype, residual.dtype))
    out, mean, inverse = _norm_fake(stream, weight, bias, eps, centred)
    return out, stream, mean, inverse


def _norm_grad(
    grad: Tensor,
    grad_stream: Tensor | None,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse: Tensor,
    centred: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of x, and those of weight and of bias, fp32 [1 or 2, columns]."""
    columns = x.shape[-1]
    rows = x.numel() // columns
    parts = max(1, min(_MOST_PARTS, rows // _ROWS_PER_PART))
    (x_rows, x_stride), (grad_rows, grad_stride) = rows_of(x), rows_of(grad)
    stream_stride = 0
    if grad_stream is not None:
        grad_stream, stream_stride = rows_of(grad_stream)
    weight, grad_x = weight.contiguous(), empty_beside(x, x.dtype)
    sums = x.new_empty((1 + centred, parts, columns), dtype=torch.float32)
    call(
        "norm_backward",
        x_rows.data_ptr(),
        weight.data_ptr(),
        grad_rows.data_ptr(),
        address(grad_stream),
        mean.data_ptr() if centred else 0,
        inverse.data_ptr(),
        grad_x.data_ptr(),
        sums.data_ptr(),
        sums[1].data_ptr() if centred else 0,
        x_stride,
        grad_stride,
        stream_stride,
        rows,
        columns,
        parts,
        DTYPES[x.dtype],
        DTYPES[weight.dtype],
        DTYPES[grad.dtype],
    )
    return grad_x, sums.sum(1)


def _norm_grad_fake(
    grad: Tensor,
    grad_stream: Tensor | None,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse: Tensor,
    centred: bool,
) -> tuple[Tensor, Tensor]:
    sums = x.new_empty((1 + centred, x.shape[-1]), dtype=torch.float32)
    return empty_beside(x, x.dtype), sums


_NORM_GRAD = Operation("norm_grad", _norm_grad, _norm_grad_fake)


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, _, centred = inputs
    _keep(ctx, x, weight, bias, centred, output)


def _keep_add_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, residual, weight, bias, _, centred = inputs
    ctx.dtypes = x.dtype, residual.dtype
    _keep(ctx, output[1], weight, bias, centred, output)


def _keep(
    ctx: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    centred: bool,
    output: tuple[Tensor, ...],
) -> None:
    mean, inverse = output[-2:]
    ctx.save_for_backward(x, weight, mean, inverse)
    ctx.bias_dtype, ctx.centred = None if bias is None else bias.dtype, centred
    ctx.mark_non_differentiable(mean, inverse)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor, grad_stream: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of what was normed, of the weight and of the bias."""
    saved = ctx.saved_tensors
    grad_x, sums = _NORM_GRAD.of_gradients(grad, grad_stream, *saved, ctx.centred)
    grad_bias = None if ctx.bias_dtype is None else sums[1].to(ctx.bias_dtype)
    return grad_x, sums[0].to(saved[1].dtype), grad_bias


def _norm_backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    gradients = (None, None, None) if grad is None else _gradients(ctx, grad, None)
    return (*gradients, None, None)


def _add_norm_backward(
    ctx: Any, grad: Tensor | None, grad_stream: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    gradients: tuple[Tensor | None, ...] = (grad_stream, None, None)
    if grad is not None:
        gradients = _gradients(ctx, grad, grad_stream)
    of_sum, *of_parameters = gradients
    of_both = (None if of_sum is None else of_sum.to(dtype) for dtype in ctx.dtypes)
    return (*of_both, *of_parameters, None, None)


_NORM = Operation("norm", _norm, _norm_fake, _norm_backward, _keep_norm)
_ADD_NORM = Operation("add_norm", _add_norm, _add_norm_fake, _add_norm_backward, _keep_add_norm)
