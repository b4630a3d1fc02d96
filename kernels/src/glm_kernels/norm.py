"""Normalisations over the last dimension."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels import reference
from glm_kernels.registry import dispatch, register


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square of the last dimension, then scale.

    Args:
        x: [..., D]; the mean square is taken in fp32 whatever its dtype.
        weight: [D].
        eps: added to the mean square.

    Returns:
        [..., D].
    """
    out: Tensor = dispatch("rms_norm", x.device.type)(x, weight, eps)
    return out


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Subtract the mean of the last dimension, divide by its deviation, scale and shift.

    Args:
        x: [..., D]; the statistics are taken in fp32 whatever its dtype.
        weight: [D].
        bias: [D] or None.
        eps: added to the variance.

    Returns:
        [..., D], dtype of x.
    """
    out: Tensor = dispatch("layer_norm", x.device.type)(x, weight, bias, eps)
    return out


@register("rms_norm", "torch")
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return reference.rms_norm(x, weight, eps)
    out: Tensor = _RMSNorm.apply(x, weight, eps)
    return out


class _RMSNorm(torch.autograd.Function):
    """Saves only its input and one number per row.

    The backward of layer norm, told that the mean was 0, gives the gradient of the weight, and
    that of x but for the projection ``rstd * mean(grad * weight)``, which is added back: two
    passes over the data where autograd of the formula makes ten.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
        rstd = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rstd)
        normed = (x32 * rstd).to(x.dtype)
        out: Tensor = normed.mul_(weight) if weight.dtype == x.dtype else normed * weight
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, rstd = ctx.saved_tensors
        size = x.shape[-1]
        grad = grad.to(x.dtype)
        weight_s = weight.to(rstd.dtype)
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [size], torch.zeros_like(rstd), rstd, weight_s, None, [True, True, False]
        )
        projection = torch.mv(grad.reshape(-1, size), weight_s.to(grad.dtype)).view(rstd.shape)
        grad_x.add_(projection.to(rstd.dtype).mul_(rstd).div_(size))
        return grad_x, grad_weight.to(weight.dtype), None


@register("layer_norm", "torch")
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
