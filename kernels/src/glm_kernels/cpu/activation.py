"""Activations and gated units on the CPU, compiled: one pass over memory forward, one backward.

The backward computes the activation again: that costs less than to write and read it, and keeps
nothing but the input.
"""

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
    rows_of,
)

_ACTIVATIONS = {"tanh": 0, "none": 1, "quick": 2, "silu": 3}
_GATES = {None: 0, "first": 1, "second": 2}
"""Their numbers in native/decode_abi.h."""


@compiled("gelu")
def gelu(x: Tensor, approximate: str) -> Tensor:
    """`glm_kernels.reference.gelu`; the exact form is PyTorch's, which is faster alone."""
    form = Form.formula if approximate == "none" else _form(x)
    if form is Form.formula:
        plain: Tensor = formula("gelu")(x, approximate)
        return plain
    out: Tensor = _GATE(form, x, approximate, None)
    return out


@compiled("geglu")
def geglu(x_2F: Tensor, activated: str, approximate: str) -> Tensor:
    """`glm_kernels.reference.geglu`."""
    form = _form(x_2F)
    if form is Form.formula:
        plain: Tensor = formula("geglu")(x_2F, activated, approximate)
        return plain
    out: Tensor = _GATE(form, x_2F, approximate, activated)
    return out


@compiled("swiglu")
def swiglu(x_2F: Tensor) -> Tensor:
    """`glm_kernels.reference.swiglu`."""
    form = _form(x_2F)
    if form is Form.formula:
        plain: Tensor = formula("swiglu")(x_2F)
        return plain
    out: Tensor = _GATE(form, x_2F, "silu", "first")
    return out


def _form(x: Tensor) -> Form:
    """Return the form for a tensor of which `glm_kernels.activation` has checked the shape."""
    return form_of(x) if x.dim() and x.shape[-1] else Form.formula


def _gate(x: Tensor, activation: str, gate: str | None) -> Tensor:
    out = _gate_fake(x, activation, gate)
    _call(x, None, out, activation, gate)
    return out


def _gate_fake(x: Tensor, activation: str, gate: str | None) -> Tensor:
    if gate is None:
        return empty_beside(x, x.dtype)
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


def _gate_grad(grad: Tensor, x: Tensor, activation: str, gate: str | None) -> Tensor:
    grad_x = empty_beside(x, x.dtype)
    _call(x, grad.contiguous(), grad_x, activation, gate)
    return grad_x


def _gate_grad_fake(grad: Tensor, x: Tensor, activation: str, gate: str | None) -> Tensor:
    return empty_beside(x, x.dtype)


def _call(x: Tensor, grad: Tensor | None, out: Tensor, activation: str, gate: str | None) -> None:
    rows, stride = rows_of(x)
    columns = x.shape[-1]
    call(
        "gate",
        rows.data_ptr(),
        address(grad),
        out.data_ptr(),
        stride,
        x.numel() // columns,
        columns if gate is None else columns // 2,
        _ACTIVATIONS[activation],
        _GATES[gate],
        DTYPES[x.dtype],
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.activation, ctx.gate = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    return _GATE_GRAD.of_gradients(grad, x, ctx.activation, ctx.gate), None, None


_GATE_GRAD = Operation("gate_grad", _gate_grad, _gate_grad_fake)
_GATE = Operation("gate", _gate, _gate_fake, _backward, _keep)
