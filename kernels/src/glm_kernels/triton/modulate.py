"""Adaptive layer norm: the norm kernel with a weight, bias and gate for each sample.

    stream = residual + gate * x;  out = layer_norm(stream) * (1 + scale) + shift

See `glm_kernels.modulate` and `glm_kernels.triton.norm`, which holds the kernels.
"""

from __future__ import annotations

from torch import Tensor

from glm_kernels.triton.norm import norm_by_sample


def modulate(x_BTD: Tensor, scale_BD: Tensor, shift_BD: Tensor, eps: float) -> Tensor:
    """`glm_kernels.modulate`: [B, ..., D] with scale and shift [B, D]."""
    return norm_by_sample(x_BTD, None, None, 1 + scale_BD, shift_BD, eps)[0]


def gate_modulate(
    x_BTD: Tensor,
    residual_BTD: Tensor,
    gate_BD: Tensor,
    scale_BD: Tensor,
    shift_BD: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`glm_kernels.gate_modulate`: the modulated norm, and the stream it is of."""
    return norm_by_sample(x_BTD, residual_BTD, gate_BD, 1 + scale_BD, shift_BD, eps)
