"""Group norm with the SiLU that follows it in a diffusion UNet."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from glm_kernels import reference
from glm_kernels.checks import check_beside, check_eps, check_input
from glm_kernels.registry import dispatch, register


def group_norm_silu(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``silu(group_norm(x) * weight + bias)``.

    A weight and bias for each sample give the adaptive form of guided diffusion
    (arXiv 2105.05233, section 3): pass ``weight * (1 + scale)`` and ``bias * (1 + scale) + shift``.

    Args:
        x: [B, C, ...]; the statistics are taken in fp32 over C / num_groups channels and all
            positions, whatever its dtype.
        num_groups: divides C.
        weight: [C], or [B, C].
        bias: shape of weight.
        eps: added to the variance.

    Returns:
        shape, dtype and memory format of x.

    Raises:
        ValueError: shapes, dtypes or devices do not belong together, or eps is not above 0.
    """
    check_input("x", x)
    check_eps(eps)
    shapes = (tuple(x.shape[1:2]), tuple(x.shape[:2]))
    if x.dim() < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(
            f"x has shape {list(x.shape)}: it must be [B, C, ...] with C a multiple of the "
            f"{num_groups} groups"
        )
    if tuple(weight.shape) not in shapes or bias.shape != weight.shape:
        raise ValueError(
            f"weight has shape {list(weight.shape)} and bias {list(bias.shape)}: both must be "
            f"{list(shapes[0])}, or {list(shapes[1])} for each sample its own"
        )
    for name, vector in (("weight", weight), ("bias", bias)):
        check_beside(name, vector, weight.shape, x)
    out: Tensor = dispatch("group_norm_silu", x.device.type)(x, num_groups, weight, bias, eps)
    return out


@register("group_norm_silu", "torch")
def _group_norm_silu(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    if not x.numel():  # PyTorch takes no empty positions
        return reference.group_norm_silu(x, num_groups, weight, bias, eps)
    if weight.dim() == 1:
        return F.silu(F.group_norm(x, num_groups, weight, bias, eps))
    shape = (*weight.shape, *(1 for _ in x.shape[2:]))
    normed = F.group_norm(x, num_groups, None, None, eps)
    return F.silu(normed * weight.view(shape) + bias.view(shape)).to(x.dtype)
