"""Normalisations on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.cpu.blocks import blocks
from glm_kernels.registry import CPU_PRIORITY, register


@register("rms_norm", "cpu", devices={"cpu"}, priority=CPU_PRIORITY, traceable=False)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`glm_kernels.reference.rms_norm`, saving its input and one number per row."""
    out: Tensor = _RMSNorm.apply(x, weight, eps)
    return out


@register("layer_norm", "cpu", devices={"cpu"}, priority=CPU_PRIORITY, traceable=False)
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """`glm_kernels.reference.layer_norm`; PyTorch's own where x is not of low precision.

    Of a bf16 x PyTorch 2.15 sums the gradients of weight and bias in bf16 on the CPU, off by 9 %
    of the largest at 600 rows.
    """
    if x.dtype == torch.promote_types(x.dtype, torch.float32):
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    out: Tensor = _LayerNorm.apply(x, weight, bias, eps)
    return out


def _slices(x_MD: Tensor, dtype: torch.dtype) -> Iterable[slice]:
    """Blocks when x must be converted: its fp32 copy then never leaves the cache."""
    return (slice(None),) if x_MD.dtype == dtype else blocks(*x_MD.shape)


class _RMSNorm(torch.autograd.Function):
    """The backward is that of layer norm with a mean of 0.

    It gives the gradient of the weight, and that of x but for ``rstd * mean(grad * weight)``,
    which is added back: two passes over the data where autograd of the formula makes ten.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        x_MD = x.reshape(-1, x.shape[-1])
        out_MD = x_MD.new_empty(x_MD.shape, dtype=torch.promote_types(x.dtype, weight_D.dtype))
        rstd_M1 = x_MD.new_empty(x_MD.shape[0], 1, dtype=dtype)
        for rows in _slices(x_MD, dtype):
            block, rstd = x_MD[rows].to(dtype), rstd_M1[rows]
            torch.linalg.vector_norm(block, dim=-1, keepdim=True, out=rstd)
            rstd.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
            if out_MD.dtype == x.dtype == dtype:
                torch.mul(block, rstd, out=out_MD[rows]).mul_(weight_D)
            else:
                torch.mul((block * rstd).to(x.dtype), weight_D, out=out_MD[rows])
        ctx.save_for_backward(x_MD, weight_D, rstd_M1)
        return out_MD.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_MD, weight_D, rstd_M1 = ctx.saved_tensors
        size, dtype = x_MD.shape[-1], rstd_M1.dtype
        grad_MD = grad.reshape(-1, size)
        weight32_D, mean_M1 = weight_D.to(dtype), torch.zeros_like(rstd_M1)
        grad_x_MD = torch.empty_like(x_MD, memory_format=torch.contiguous_format)
        grad_weight_D = torch.zeros_like(weight32_D)
        for rows in _slices(x_MD, dtype):
            block, grad_block = x_MD[rows].to(dtype), grad_MD[rows].to(dtype)
            rstd = rstd_M1[rows]
            centred, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
                grad_block,
                block,
                [size],
                mean_M1[rows],
                rstd,
                weight32_D,
                None,
                [True, True, False],
            )
            projection = torch.mv(grad_block, weight32_D / size)[:, None].mul_(rstd)
            torch.add(centred, projection, out=grad_x_MD[rows])
            grad_weight_D += grad_weight
        return grad_x_MD.view(grad.shape), grad_weight_D.to(weight_D.dtype), None


class _LayerNorm(torch.autograd.Function):
    """PyTorch's fp32 layer norm over fp32 copies of blocks of a low-precision input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float) -> Tensor:
        x_MD = x.reshape(-1, x.shape[-1])
        weight32_D, bias32_D = weight_D.float(), None if bias_D is None else bias_D.float()
        out_MD = torch.empty_like(x_MD, memory_format=torch.contiguous_format)
        mean_M1, rstd_M1 = x_MD.new_empty(2, x_MD.shape[0], 1, dtype=torch.float32)
        for rows in blocks(*x_MD.shape):
            block = x_MD[rows].float()
            out_MD[rows], mean_M1[rows], rstd_M1[rows] = torch.native_layer_norm(
                block, block.shape[-1:], weight32_D, bias32_D, eps
            )
        ctx.save_for_backward(x_MD, weight_D, bias_D, mean_M1, rstd_M1)
        return out_MD.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_MD, weight_D, bias_D, mean_M1, rstd_M1 = ctx.saved_tensors
        size = x_MD.shape[-1]
        weight32_D = weight_D.float()
        bias32_D = torch.zeros_like(weight32_D)
        grad_MD = grad.reshape(-1, size)
        grad_x_MD = torch.empty_like(x_MD, memory_format=torch.contiguous_format)
        sums_2D = weight32_D.new_zeros(2, size)
        for rows in blocks(*x_MD.shape):
            grad_x_MD[rows], grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
                grad_MD[rows].float(),
                x_MD[rows].float(),
                [size],
                mean_M1[rows],
                rstd_M1[rows],
                weight32_D,
                bias32_D,
                [True, True, True],
            )
            sums_2D[0] += grad_weight
            sums_2D[1] += grad_bias
        grad_bias_D = None if bias_D is None else sums_2D[1].to(bias_D.dtype)
        return grad_x_MD.view(grad.shape), sums_2D[0].to(weight_D.dtype), grad_bias_D, None
