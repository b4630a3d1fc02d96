"""Normalisations over the last dimension."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_kernels.checks import check_beside, check_eps, check_input
from glm_kernels.registry import dispatch, register


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square of the last dimension, then scale.

    Args:
        x: [..., D]; the mean square is taken in fp32 whatever its dtype.
        weight: [D].
        eps: added to the mean square.

    Returns:
        [..., D], in the wider dtype of x and weight.

    Raises:
        ValueError: x is not floating point, eps is not above 0, or shapes or devices differ.
    """
    _check(x, weight, None, eps)
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

    Raises:
        ValueError: x is not floating point, eps is not above 0, or shapes or devices differ.
    """
    _check(x, weight, bias, eps)
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

    Raises:
        ValueError: x is not floating point, eps is not above 0, or shapes or devices differ.
    """
    check_beside("residual", residual, x.shape, x)
    _check(x, weight, None, eps)
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

    Raises:
        ValueError: x is not floating point, eps is not above 0, or shapes or devices differ.
    """
    check_beside("residual", residual, x.shape, x)
    _check(x, weight, bias, eps)
    out: tuple[Tensor, Tensor] = dispatch("add_layer_norm", x.device.type)(
        x, residual, weight, bias, eps
    )
    return out


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> None:
    check_input("x", x)
    check_eps(eps)
    check_beside("weight", weight, x.shape[-1:], x)
    if bias is not None:
        check_beside("bias", bias, x.shape[-1:], x)


@register("rms_norm", "torch")
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if weight.dtype == x.dtype:
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    return F.rms_norm(x, (x.shape[-1],), None, eps) * weight  # rounded to x's dtype, then promoted


@register("layer_norm", "torch")
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    if weight.dtype == x.dtype and (bias is None or bias.dtype == x.dtype):
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    wide = torch.promote_types(x.dtype, torch.float32)
    shift = None if bias is None else bias.to(wide)
    return F.layer_norm(x.to(wide), (x.shape[-1],), weight.to(wide), shift, eps).to(x.dtype)


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
