"""Softmax of attention scores in fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from glm_kernels import reference
from glm_kernels.checks import check_input
from glm_kernels.registry import dispatch, register


def scale_mask_softmax(scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Softmax over the visible keys of ``scores * scale``, computed in fp32.

    Args:
        scores_BNTS: [B, N, T, S] products of queries and keys.
        mask: bool, broadcasts to scores, True where the key is visible; None: all visible.
        scale: multiplies the scores inside the fp32 part.

    Returns:
        [B, N, T, S], dtype of scores; a row without a visible key is all zeros.

    Raises:
        ValueError: scores are not floating point, or the mask is not bool, is elsewhere or does
            not broadcast to them.
    """
    check_input("scores", scores_BNTS)
    if mask is not None:
        _check_mask(mask, scores_BNTS)
    out: Tensor = dispatch("scale_mask_softmax", scores_BNTS.device.type)(scores_BNTS, mask, scale)
    return out


def _check_mask(mask: Tensor, scores: Tensor) -> None:
    sizes = zip(reversed(mask.shape), reversed(scores.shape), strict=False)
    if (
        mask.dtype != torch.bool
        or mask.device != scores.device
        or mask.dim() > scores.dim()
        or not all(size in (1, full) for size, full in sizes)
    ):
        raise ValueError(
            f"mask is {mask.dtype} of shape {list(mask.shape)} on {mask.device}: it must be "
            f"torch.bool on {scores.device} and broadcast to the scores, {list(scores.shape)}"
        )


register("scale_mask_softmax", "torch")(reference.scale_mask_softmax)
