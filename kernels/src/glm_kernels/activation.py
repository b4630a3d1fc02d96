"""Activations of the feed-forward block."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels import reference
from glm_kernels.registry import dispatch, register

Approximate = Literal["tanh", "none"]
Half = Literal["first", "second"]


def gelu(x: Tensor, approximate: Approximate) -> Tensor:
    """Gaussian error linear unit.

    Args:
        x: any shape.
        approximate: "tanh" for the tanh formula (GLM, ChatGLM-6B), "none" for erf (GLM-130B).

    Returns:
        shape and dtype of x.
    """
    out: Tensor = dispatch("gelu", x.device.type)(x, approximate)
    return out


def geglu(x_2F: Tensor, activated: Half, approximate: Approximate) -> Tensor:
    """``gelu(one half) * other half`` of the last dimension.

    Args:
        x_2F: [..., 2F].
        activated: which half goes through gelu: "second" in GLM-130B.
        approximate: formula of `gelu`.

    Returns:
        [..., F], dtype of x.
    """
    out: Tensor = dispatch("geglu", x_2F.device.type)(x_2F, activated, approximate)
    return out


def swiglu(x_2F: Tensor) -> Tensor:
    """``silu(first half) * second half`` of the last dimension.

    Args:
        x_2F: [..., 2F].

    Returns:
        [..., F], dtype of x.
    """
    out: Tensor = dispatch("swiglu", x_2F.device.type)(x_2F)
    return out


@register("gelu", "torch")
def _gelu(x: Tensor, approximate: Approximate) -> Tensor:
    return F.gelu(x, approximate=approximate)


@register("geglu", "torch")
def _geglu(x_2F: Tensor, activated: Half, approximate: Approximate) -> Tensor:
    if torch.compiler.is_compiling():
        return reference.geglu(x_2F, activated, approximate)
    out: Tensor = _GatedUnit.apply(x_2F, activated, approximate)
    return out


@register("swiglu", "torch")
def _swiglu(x_2F: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return reference.swiglu(x_2F)
    out: Tensor = _GatedUnit.apply(x_2F, "first", "silu")
    return out


def _activate(gate: Tensor, kind: str) -> Tensor:
    return F.silu(gate) if kind == "silu" else F.gelu(gate, approximate=kind)


class _GatedUnit(torch.autograd.Function):
    """``activation(gate) * value``, saving only its input.

    Autograd of the formula also saves the activated half, and joins the gradients of the two
    halves by a copy; here both are written in place into one tensor.
    """

    @staticmethod
    def forward(ctx: Any, x_2F: Tensor, activated: Half, kind: str) -> Tensor:
        ctx.save_for_backward(x_2F)
        ctx.activated, ctx.kind = activated, kind
        gate, value = _gate_and_value(x_2F, activated)
        return _activate(gate, kind).mul_(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_F: Tensor) -> tuple[Tensor | None, ...]:
        (x_2F,) = ctx.saved_tensors
        grad_2F = torch.empty(x_2F.shape, dtype=x_2F.dtype, device=x_2F.device)
        gate, value = _gate_and_value(x_2F, ctx.activated)
        grad_gate, grad_value = _gate_and_value(grad_2F, ctx.activated)
        torch.mul(grad_F, _activate(gate, ctx.kind), out=grad_value)
        grad_activated = grad_F * value
        if ctx.kind == "silu":
            torch.ops.aten.silu_backward.grad_input(grad_activated, gate, grad_input=grad_gate)
        else:
            torch.ops.aten.gelu_backward.grad_input(
                grad_activated, gate, approximate=ctx.kind, grad_input=grad_gate
            )
        return grad_2F, None, None


def _gate_and_value(x_2F: Tensor, activated: Half) -> tuple[Tensor, Tensor]:
    first, second = x_2F.chunk(2, dim=-1)
    return (first, second) if activated == "first" else (second, first)
