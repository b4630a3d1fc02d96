"""Softmax of attention scores in fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels import reference
from glm_kernels.registry import dispatch, register


def scale_mask_softmax(scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Softmax over the visible keys of ``scores * scale``, computed in fp32.

    Args:
        scores_BNTS: [B, N, T, S] products of queries and keys.
        mask: bool, broadcasts to scores, True where the key is visible; None: all visible.
        scale: multiplies the scores inside the fp32 part.

    Returns:
        [B, N, T, S], dtype of scores; a row without a visible key is all zeros.
    """
    out: Tensor = dispatch("scale_mask_softmax", scores_BNTS.device.type)(scores_BNTS, mask, scale)
    return out


@register("scale_mask_softmax", "torch")
def _scale_mask_softmax(scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    if torch.compiler.is_compiling():
        return reference.scale_mask_softmax(scores_BNTS, mask, scale)
    out: Tensor = _ScaleMaskSoftmax.apply(scores_BNTS, mask, scale)
    return out


class _ScaleMaskSoftmax(torch.autograd.Function):
    """Saves only its result, in the dtype of the scores, and works in one fp32 buffer."""

    @staticmethod
    def forward(ctx: Any, scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        dtype = torch.promote_types(scores_BNTS.dtype, torch.float32)
        buffer = torch.mul(scores_BNTS.to(dtype), scale)
        if mask is not None:
            buffer.masked_fill_(~mask, torch.finfo(dtype).min)
        torch.softmax(buffer, dim=-1, out=buffer)
        if mask is not None:
            # only a row with no visible key at all kept weight on its hidden cells
            buffer.mul_(mask.any(-1, keepdim=True))
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
