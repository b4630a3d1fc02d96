"""Normalisations over the last dimension."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from glm_kernels.registry import dispatch, register


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square of the last dimension, then scale.

    Args:
        x: [..., D]; the mean square is taken in fp32 whatever its dtype.
        weight: [D].
        eps: added to the mean square.

    Returns:
        [..., D], in the wider dtype of x and weight.
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
    if weight.dtype == x.dtype:
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    return F.rms_norm(x, (x.shape[-1],), None, eps) * weight  # rounded to x's dtype, then promoted


@register("layer_norm", "torch")
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
