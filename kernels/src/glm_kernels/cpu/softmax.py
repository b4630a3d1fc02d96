"""Softmax of attention scores on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.registry import CPU_PRIORITY, register


@register("scale_mask_softmax", "cpu", devices={"cpu"}, priority=CPU_PRIORITY, traceable=False)
def scale_mask_softmax(scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """`glm_kernels.reference.scale_mask_softmax` in one fp32 buffer."""
    out: Tensor = _ScaleMaskSoftmax.apply(scores_BNTS, mask, scale)
    return out


class _ScaleMaskSoftmax(torch.autograd.Function):
    """Saves only its result, in the dtype of the scores."""

    @staticmethod
    def forward(ctx: Any, scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        dtype = torch.promote_types(scores_BNTS.dtype, torch.float32)
        buffer = scores_BNTS.to(dtype) * scale
        if mask is not None:
            buffer.masked_fill_(~mask, torch.finfo(dtype).min)
        torch.softmax(buffer, dim=-1, out=buffer)
        if mask is not None:
            blind = ~mask.any(-1, keepdim=True)
            if blind.any():  # a row with no visible key spread its weight over hidden ones
                buffer.masked_fill_(blind, 0)
        probs_BNTS = buffer.to(scores_BNTS.dtype)
        ctx.save_for_backward(probs_BNTS)
        ctx.scale = scale
        return probs_BNTS

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BNTS: Tensor) -> tuple[Tensor | None, ...]:
        (probs_BNTS,) = ctx.saved_tensors
        grad = torch._softmax_backward_data(grad_BNTS, probs_BNTS, -1, probs_BNTS.dtype)
        return grad.mul_(ctx.scale), None, None
