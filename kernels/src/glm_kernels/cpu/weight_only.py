"""Weight-only products on the CPU: the compiled kernels, and PyTorch's operations without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from glm_kernels.cpu import library
from glm_kernels.registry import CPU_PRIORITY, register
from glm_kernels.weight_only import PackedWeight, block_chunks, dequantize_packed

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Their numbers in native/abi.h."""


@register("linear_weight_only", "torch")
def linear_by_blocks(
    x: Tensor, packed: PackedWeight, bias: Tensor | None, activation_bits: int
) -> Tensor:
    """Dequantizes some rows of the weight at a time and multiplies them."""
    del activation_bits  # nothing is rounded
    out: Tensor = _ProductByBlocks.apply(x, packed)
    return out if bias is None else (out + bias).to(x.dtype)


class _ProductByBlocks(torch.autograd.Function):
    """``x W^T`` that saves nothing but the packed weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: PackedWeight) -> Tensor:
        ctx.packed = packed
        parts = [x @ dequantize_packed(packed, x.dtype, at).T for at in block_chunks(packed)]
        return torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad_of_input(grad, ctx.packed), None


def grad_of_input(grad: Tensor, packed: PackedWeight) -> Tensor:
    """``grad W``, [..., N] to [..., K], some rows of the weight at a time."""
    total = grad.new_zeros((*grad.shape[:-1], packed.in_features), dtype=torch.float32)
    for at in block_chunks(packed):
        weight = dequantize_packed(packed, grad.dtype, at)
        begin = at.start * 16
        total += grad[..., begin : begin + len(weight)] @ weight
    return total.to(grad.dtype)


@register(
    "linear_weight_only",
    "cpu",
    devices={"cpu"},
    priority=CPU_PRIORITY,
    unavailable=library.unavailable,
)
def linear_compiled(
    x: Tensor, packed: PackedWeight, bias: Tensor | None, activation_bits: int
) -> Tensor:
    """Calls the compiled kernel."""
    if x.dtype not in _DTYPES:
        raise ValueError(f"x is {x.dtype}: the compiled kernels take fp32, bf16 and fp16")
    return _call(
        x,
        packed.levels,
        packed.scales,
        packed.zeros,
        bias,
        packed.out_features,
        packed.bits,
        packed.group or 0,
        2 if activation_bits == 15 else 1,
    )


def _call(
    x: Tensor,
    levels: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    bits: int,
    group: int,
    planes: int,
) -> Tensor:
    x_MK = x.reshape(-1, x.shape[-1])
    if x_MK.stride(1) != 1:
        x_MK = x_MK.contiguous()
    out = x.new_empty((*x.shape[:-1], out_features))
    status = library.library().glm_linear_weight_only(
        x_MK.data_ptr(),
        levels.data_ptr(),
        scales.data_ptr(),
        None if zeros is None else zeros.data_ptr(),
        None if bias is None else bias.data_ptr(),
        out.data_ptr(),
        x_MK.stride(0),
        x_MK.shape[0],
        x_MK.shape[1],
        out_features,
        _DTYPES[x.dtype],
        0 if bias is None else _DTYPES[bias.dtype],
        bits,
        group,
        planes,
        torch.get_num_threads(),
        library.isa(),
    )
    if status:
        raise MemoryError("no memory for the quantized activations of linear_weight_only")
    return out
