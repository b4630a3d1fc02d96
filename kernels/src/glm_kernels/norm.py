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


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add a layer's result to the residual stream, and take the `rms_norm` of the sum.

    Args:
        x: [..., D].
        residual: shape of x.
        weight: [D].
        eps: added to the mean square.

    Returns:
        (norm, new residual stream), both [..., D]; the stream in the wider dtype of x and residual.
    """
    out: tuple[Tensor, Tensor] = dispatch("add_rms_norm", x.device.type)(x, residual, weight, eps)
    return out


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """As `add_rms_norm`, with `layer_norm`.

    Args:
        x: [..., D].
        residual: shape of x.
        weight: [D].
        bias: [D] or None.
        eps: added to the variance.

    Returns:
        (norm, new residual stream), both [..., D], in the wider dtype of x and residual.
    """
    out: tuple[Tensor, Tensor] = dispatch("add_layer_norm", x.device.type)(
        x, residual, weight, bias, eps
    )
    return out


@register("rms_norm", "torch")
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if weight.dtype == x.dtype:
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    return F.rms_norm(x, (x.shape[-1],), None, eps) * weight  # rounded to x's dtype, then promoted


@register("layer_norm", "torch")
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


@register("add_rms_norm", "torch")
def _add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    stream = residual + x
    return rms_norm(stream, weight, eps), stream


@register("add_layer_norm", "torch")
def _add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    stream = residual + x
    return layer_norm(stream, weight, bias, eps), stream
