"""Attention through torch's flex_attention: prefix and packed masks without a T x S tensor."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.spec import check_rows


class FlexAttention:
    """Block-sparse attention, compiled on a GPU. On a CPU it runs unfused, as a reference."""

    name = "flex"

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        if dropout > 0:
            return f"flex_attention has no dropout, and attention_dropout is {dropout}"
        return None

    def prepare(self, request: MaskRequest) -> Any:
        """Returns a BlockMask."""
        from torch.nn.attention.flex_attention import create_block_mask

        check_rows(request.spec, request.batch)
        length = max(request.kv_len, request.q_offset + request.q_len)
        visible = request.spec.mask_mod(length, request.device)
        offset = request.q_offset

        def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return visible(b, q + offset, k)

        return create_block_mask(
            mask_mod,
            B=None if request.spec.rows is None else request.batch,
            H=None,
            Q_LEN=request.q_len,
            KV_LEN=request.kv_len,
            device=request.device,
        )

    def attend(
        self,
        mask: Any,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float,
    ) -> Tensor:
        out_BNTH = _flex_attention(q_BTNH.device.type)(
            q_BTNH.transpose(1, 2),
            k_BSKH.transpose(1, 2),
            v_BSKH.transpose(1, 2),
            block_mask=mask,
            scale=scaling.scale,
            enable_gqa=q_BTNH.shape[2] != k_BSKH.shape[2],
        )
        assert isinstance(out_BNTH, Tensor)
        return out_BNTH.transpose(1, 2)


@cache
def _flex_attention(device_type: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if device_type == "cuda" else flex_attention
