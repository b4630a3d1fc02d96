"""Adaptive layer norm: each sample's condition scales, shifts and gates."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from glm_kernels.checks import check_beside, check_eps, check_input
from glm_kernels.registry import dispatch, register


def modulate(x_BTD: Tensor, scale_BD: Tensor, shift_BD: Tensor, eps: float) -> Tensor:
    """``layer_norm(x) * (1 + scale) + shift``, the norm without weights of its own.

    Args:
        x_BTD: [B, ..., D]; the statistics are taken in fp32 whatever its dtype.
        scale_BD: [B, D], of the sample's condition.
        shift_BD: [B, D].
        eps: added to the variance.

    Returns:
        [B, ..., D], dtype of x.

    Raises:
        ValueError: shapes, dtypes or devices do not belong together, or eps is not above 0.

    Source: arXiv 2212.09748, section 3.2 (adaLN).
    """
    _check(x_BTD, eps, scale=scale_BD, shift=shift_BD)
    out: Tensor = dispatch("modulate", x_BTD.device.type)(x_BTD, scale_BD, shift_BD, eps)
    return out


def gate_modulate(
    x_BTD: Tensor,
    residual_BTD: Tensor,
    gate_BD: Tensor,
    scale_BD: Tensor,
    shift_BD: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`modulate` of ``residual + gate * x``: the end of one layer and the beginning of the next.

    Args:
        x_BTD: [B, ..., D], result of a layer.
        residual_BTD: shape of x.
        gate_BD: [B, D]; zero at the start of training (adaLN-Zero, arXiv 2212.09748, section 3.2).
        scale_BD: [B, D].
        shift_BD: [B, D].
        eps: added to the variance.

    Returns:
        (modulated norm, new residual stream), both in the wider dtype of x and residual.

    Raises:
        ValueError: shapes, dtypes or devices do not belong together, or eps is not above 0.
    """
    _check(x_BTD, eps, gate=gate_BD, scale=scale_BD, shift=shift_BD)
    check_beside("residual", residual_BTD, x_BTD.shape, x_BTD)
    out: tuple[Tensor, Tensor] = dispatch("gate_modulate", x_BTD.device.type)(
        x_BTD, residual_BTD, gate_BD, scale_BD, shift_BD, eps
    )
    return out


def _check(x: Tensor, eps: float, **conditions: Tensor) -> None:
    check_input("x", x)
    check_eps(eps)
    for name, tensor in conditions.items():
        if x.dim() < 2 or tuple(tensor.shape) != (x.shape[0], x.shape[-1]):
            raise ValueError(
                f"{name} has shape {list(tensor.shape)} and x {list(x.shape)}: they must be "
                "[B, D] and [B, ..., D]"
            )
        check_beside(name, tensor, tensor.shape, x)


def _of_sample(condition_BD: Tensor, x: Tensor) -> Tensor:
    """Return a condition in a shape that multiplies x."""
    batch, size = condition_BD.shape
    return condition_BD.view(batch, *(1 for _ in x.shape[1:-1]), size)


@register("modulate", "torch")
def _modulate(x: Tensor, scale_BD: Tensor, shift_BD: Tensor, eps: float) -> Tensor:
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return (normed * (1 + _of_sample(scale_BD, x)) + _of_sample(shift_BD, x)).to(x.dtype)


@register("gate_modulate", "torch")
def _gate_modulate(
    x: Tensor,
    residual: Tensor,
    gate_BD: Tensor,
    scale_BD: Tensor,
    shift_BD: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    stream = residual + _of_sample(gate_BD, x).to(x.dtype) * x
    return _modulate(stream, scale_BD, shift_BD, eps), stream
