"""Attention in which each query sees one interval of keys, and the first keys if wished.

Causal, full, prefix-LM, packed and padded masks all have this form, so a mask is two integers per
query instead of a matrix, and blocks of keys that no query of a block sees are never touched.

Letters: B batch, T queries, S keys, N query heads, K key/value heads, H head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_kernels.registry import dispatch, register


@dataclass(frozen=True, slots=True)
class VisibleKeys:
    """Which keys a query sees: those in [start, stop), and those below `sink`."""

    start_BT: Tensor
    """int32 [B or 1, T]; 1 where all rows of the batch are alike."""
    stop_BT: Tensor
    """int32 [B or 1, T]; a query with stop <= start and sink 0 sees nothing: its result is 0."""
    sink: int = 0
    """Keys 0 .. sink - 1 are seen by every query of every row."""

    def dense(self, num_keys: int) -> Tensor:
        """Write the mask out: bool [B or 1, T, S]."""
        s = torch.arange(num_keys, device=self.start_BT.device)
        inside = (s >= self.start_BT[..., None]) & (s < self.stop_BT[..., None])
        return inside | (s < self.sink)


def attention(
    q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, visible: VisibleKeys, scale: float
) -> Tensor:
    """``softmax(scale q k^T) v`` over the visible keys, the softmax in fp32.

    Args:
        q_BTNH: [B, T, N, H], fp32, bf16 or fp16.
        k_BSKH: [B, S, K, H]; N is a multiple of K, and N / K query heads in a row share a key head.
        v_BSKH: as k.
        visible: the mask, on the device of q.
        scale: usually 1 / sqrt(H).

    Returns:
        [B, T, N, H], dtype of q.

    Raises:
        ValueError: shapes, dtypes or devices that do not belong together.
    """
    _check(q_BTNH, k_BSKH, v_BSKH, visible)
    out: Tensor = dispatch("attention", q_BTNH.device.type)(
        q_BTNH, k_BSKH, v_BSKH, visible.start_BT, visible.stop_BT, visible.sink, scale
    )
    return out


@register("attention", "torch")
def _attention(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    start_BT: Tensor,
    stop_BT: Tensor,
    sink: int,
    scale: float,
) -> Tensor:
    mask_B1TS = VisibleKeys(start_BT, stop_BT, sink).dense(k_BSKH.shape[1])[:, None]
    out_BNTH = F.scaled_dot_product_attention(
        q_BTNH.transpose(1, 2),
        k_BSKH.transpose(1, 2),
        v_BSKH.transpose(1, 2),
        attn_mask=mask_B1TS,
        scale=scale,
        enable_gqa=q_BTNH.shape[2] != k_BSKH.shape[2],
    )
    # A row that sees nothing is NaN or the mean of all keys in some of SDPA's kernels.
    out_BNTH = out_BNTH.masked_fill(~mask_B1TS.any(-1, keepdim=True), 0)
    return out_BNTH.transpose(1, 2)


def _check(q: Tensor, k: Tensor, v: Tensor, visible: VisibleKeys) -> None:
    if q.dim() != 4 or k.dim() != 4 or k.shape != v.shape or q.shape[0] != k.shape[0]:
        raise ValueError(
            f"q has shape {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)}: they must be "
            "[B, T, N, H], [B, S, K, H] and [B, S, K, H]"
        )
    if k.shape[2] == 0 or q.shape[2] % k.shape[2] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"q has {q.shape[2]} heads of {q.shape[3]} dims, k {k.shape[2]} of {k.shape[3]}: the "
            "heads of q must be a multiple of those of k, of the same size"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(
            f"q is {q.dtype}, k {k.dtype}, v {v.dtype}: they must be of one floating-point dtype"
        )
    if not q.device == k.device == v.device:
        raise ValueError(f"q is on {q.device}, k on {k.device}, v on {v.device}: move them to one")
    for name, bound in (("start", visible.start_BT), ("stop", visible.stop_BT)):
        rows_fit = bound.dim() == 2 and bound.shape[0] in (1, q.shape[0])
        if not rows_fit or bound.shape[1] != q.shape[1] or bound.dtype != torch.int32:
            raise ValueError(
                f"{name} is {bound.dtype} of shape {list(bound.shape)}: it must be torch.int32 of "
                f"shape [{q.shape[0]} or 1, {q.shape[1]}]"
            )
        if bound.device != q.device:
            raise ValueError(f"{name} is on {bound.device} but q is on {q.device}")
