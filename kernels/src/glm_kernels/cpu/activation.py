"""Gated activations on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.registry import CPU_PRIORITY, register


@register("geglu", "cpu", devices={"cpu"}, priority=CPU_PRIORITY, traceable=False)
def geglu(x_2F: Tensor, activated: str, approximate: str) -> Tensor:
    """`glm_kernels.reference.geglu` with the gradient of both halves written into one tensor."""
    out: Tensor = _GatedUnit.apply(x_2F, activated, approximate)
    return out


@register("swiglu", "cpu", devices={"cpu"}, priority=CPU_PRIORITY, traceable=False)
def swiglu(x_2F: Tensor) -> Tensor:
    """`glm_kernels.reference.swiglu` with the gradient of both halves written into one tensor."""
    out: Tensor = _GatedUnit.apply(x_2F, "first", "silu")
    return out


class _GatedUnit(torch.autograd.Function):
    """``activation(gate) * value``; autograd of the formula joins the two gradients by a copy.

    Saves the activated half as the formula does: computing it again costs more than reading it.
    """

    @staticmethod
    def forward(ctx: Any, x_2F: Tensor, activated: str, kind: str) -> Tensor:
        gate, value = _gate_and_value(x_2F, activated)
        active = F.silu(gate) if kind == "silu" else F.gelu(gate, approximate=kind)
        ctx.save_for_backward(x_2F, active)
        ctx.activated, ctx.kind = activated, kind
        return active * value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_F: Tensor) -> tuple[Tensor | None, ...]:
        x_2F, active = ctx.saved_tensors
        grad_2F = torch.empty_like(x_2F, memory_format=torch.contiguous_format)
        gate, value = _gate_and_value(x_2F, ctx.activated)
        grad_gate, grad_value = _gate_and_value(grad_2F, ctx.activated)
        torch.mul(grad_F, active, out=grad_value)
        grad_active = grad_F * value
        if ctx.kind == "silu":
            torch.ops.aten.silu_backward.grad_input(grad_active, gate, grad_input=grad_gate)
        else:
            # of low precision it is slow into a tensor with gaps: written densely, then copied
            target = grad_gate if grad_F.dtype == torch.float32 else grad_active
            torch.ops.aten.gelu_backward.grad_input(
                grad_active, gate, approximate=ctx.kind, grad_input=target
            )
            if target is grad_active:
                grad_gate.copy_(grad_active)
        return grad_2F, None, None


def _gate_and_value(x_2F: Tensor, activated: str) -> tuple[Tensor, Tensor]:
    first, second = x_2F.chunk(2, dim=-1)
    return (first, second) if activated == "first" else (second, first)
