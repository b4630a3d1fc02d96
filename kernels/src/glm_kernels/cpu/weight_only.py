"""Weight-only products on the CPU: the compiled kernels, and PyTorch's operations without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from glm_kernels.cpu import library
from glm_kernels.registry import CPU_PRIORITY, register
from glm_kernels.weight_only import (
    BLOCK,
    PackedWeight,
    block_chunks,
    dequantize_packed,
    some_blocks,
    some_columns,
)

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Their numbers in native/abi.h."""
_NUMBERS, _GRAD_COLUMNS = 1 << 21, 128
"""Weights that are numbers at once, 8 MiB in fp32, so that they are in the cache when they are
multiplied; and what the columns are a multiple of that a gradient meets at once."""
_MOST_ROWS = {"portable": {2: 3, 1: 4}, "avx2": {2: 128}}
"""Rows of x, by instruction set and planes of the activations, up to which its integers are faster
than torch's product with the dequantized weight: measured on one core held to AVX2, where 256 rows
took 1.0 to 1.3 times as long in two planes and 0.8 times in one."""


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
        numbers = x.to(_product_dtype(x))
        parts = [
            numbers @ dequantize_packed(packed, numbers.dtype, at).T for at in block_chunks(packed)
        ]
        return torch.cat(parts, dim=-1).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad_of_input(grad, ctx.packed), None


def grad_of_input(grad: Tensor, packed: PackedWeight) -> Tensor:
    """``grad W``, [..., N] to [..., K], some columns of the weight at a time."""
    grad_MN = grad.reshape(-1, grad.shape[-1]).to(_product_dtype(grad))
    out_MK = grad.new_empty((len(grad_MN), packed.in_features))
    step = max(1, _NUMBERS // (packed.out_features * _GRAD_COLUMNS)) * _GRAD_COLUMNS
    room = grad_MN.new_empty(packed.out_features * min(step, packed.in_features))
    for begin in range(0, packed.in_features, step):
        columns = slice(begin, min(begin + step, packed.in_features))
        out_MK[:, columns] = grad_MN @ _columns(packed, columns, room)
    return out_MK.view(*grad.shape[:-1], packed.in_features)


def _columns(packed: PackedWeight, columns: slice, room: Tensor) -> Tensor:
    """Some columns of the weight, [N, .], written to `room`: by the compiled part if possible."""
    count = columns.stop - columns.start
    out = room[: packed.out_features * count].view(packed.out_features, count)
    if out.device.type != "cpu" or out.dtype not in _DTYPES or library.unavailable() is not None:
        return out.copy_(dequantize_packed(some_columns(packed, columns), out.dtype))
    _dequantize(packed, columns.start, out)
    return out


def _dequantize(packed: PackedWeight, first_column: int, out: Tensor) -> None:
    """Writes a weight from some column on, [N, .], to `out`, by the compiled part."""
    library.library().glm_dequantize(
        packed.levels.data_ptr(),
        packed.scales.data_ptr(),
        None if packed.zeros is None else packed.zeros.data_ptr(),
        out.data_ptr(),
        packed.in_features,
        packed.out_features,
        first_column,
        out.shape[1],
        _DTYPES[out.dtype],
        packed.bits,
        packed.group or 0,
        torch.get_num_threads(),
        library.isa(),
    )


def _product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a product with numbers is fast: fp32 where a CPU only imitates others."""
    is_native = x.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    if x.device.type != "cpu" or is_native:
        return x.dtype
    return torch.promote_types(x.dtype, torch.float32)


def _multiply_numbers(x_MK: Tensor, packed: PackedWeight, bias: Tensor | None) -> Tensor:
    """``x W^T + b``, [M, N], some rows of the weight at a time as numbers."""
    x_MK = x_MK.to(_product_dtype(x_MK))
    out_MN = x_MK.new_empty((len(x_MK), packed.out_features))
    chunks = block_chunks(packed, _NUMBERS)
    room = x_MK.new_empty((chunks[0].stop * BLOCK, packed.in_features))
    for at in chunks:
        some, begin = some_blocks(packed, at), at.start * BLOCK
        weight = room[: some.out_features]
        _dequantize(some, 0, weight)
        out_MN[:, begin : begin + len(weight)] = x_MK @ weight.T
    return out_MN if bias is None else out_MN + bias


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
    """Calls the compiled kernel; through a custom op where gradients or torch.compile need one."""
    if x.dtype not in _DTYPES:  # fp64, of which the compiled kernels would lose the bits
        return linear_by_blocks(x, packed, bias, activation_bits)
    needs_grad = torch.is_grad_enabled() and (
        x.requires_grad or (bias is not None and bias.requires_grad)
    )
    traced = needs_grad or torch.compiler.is_compiling()
    out: Tensor = (_linear_op if traced else _linear)(
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
    return out


def _linear(
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
    x_MK = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    if x_MK.stride(1) != 1:
        x_MK = x_MK.contiguous()
    if bias is not None and bias.stride(0) != 1:
        bias = bias.contiguous()
    most = _MOST_ROWS.get(library.ISAS[library.isa()])
    if most is not None and len(x_MK) > most.get(planes, len(x_MK)):
        packed = _packed(levels, scales, zeros, out_features, x.shape[-1], bits, group)
        out = _multiply_numbers(x_MK, packed, bias).to(x.dtype)
        return out.view(*x.shape[:-1], out_features)
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


def _linear_grad(
    grad: Tensor,
    levels: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    in_features: int,
    bits: int,
    group: int,
) -> Tensor:
    """Gradient of x for the gradient of the result."""
    out_features = grad.shape[-1]
    packed = _packed(levels, scales, zeros, out_features, in_features, bits, group)
    return grad_of_input(grad, packed)


def _packed(
    levels: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    out_features: int,
    in_features: int,
    bits: int,
    group: int,
) -> PackedWeight:
    return PackedWeight(
        levels=levels,
        scales=scales,
        zeros=zeros,
        out_features=out_features,
        in_features=in_features,
        bits=bits,
        group=group or None,
    )


_linear_op = torch.library.custom_op("glm_kernels::linear_weight_only", _linear, mutates_args=())
_linear_grad_op = torch.library.custom_op(
    "glm_kernels::linear_weight_only_grad", _linear_grad, mutates_args=()
)


@_linear_op.register_fake
def _(x: Tensor, *arguments: Any) -> Tensor:
    out_features: int = arguments[4]
    return x.new_empty((*x.shape[:-1], out_features))


@_linear_grad_op.register_fake
def _(grad: Tensor, *arguments: Any) -> Tensor:
    in_features: int = arguments[3]
    return grad.new_empty((*grad.shape[:-1], in_features))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, levels, scales, zeros, bias, _, *ctx.layout, _ = inputs
    ctx.save_for_backward(levels, scales, zeros)
    ctx.in_features = x.shape[-1]
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = _linear_grad_op(grad, *ctx.saved_tensors, ctx.in_features, *ctx.layout)
    if ctx.needs_input_grad[4]:
        rows = grad.reshape(-1, grad.shape[-1])
        grad_bias = rows.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
    return grad_x, None, None, None, grad_bias, None, None, None, None


_linear_op.register_autograd(_backward, setup_context=_setup_context)
