"""Softmax of attention scores in fp32."""

from __future__ import annotations

from torch import Tensor

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


register("scale_mask_softmax", "torch")(reference.scale_mask_softmax)
