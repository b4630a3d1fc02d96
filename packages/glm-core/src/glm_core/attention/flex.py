"""Attention through torch's flex_attention: prefix and packed masks without a T x S tensor."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.eager import EagerAttention
from glm_core.attention.spec import check_rows


@dataclass(frozen=True)
class FlexMask:
    """A BlockMask, and the request it was made from."""

    blocks: Any
    request: MaskRequest


class FlexAttention:
    """Block-sparse attention, compiled on a GPU.

    On a CPU it is a reference: torch runs its forward unfused and has no backward there, so that
    gradients come from the written-out form.
    """

    name = "flex"

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        if dropout > 0:
            return f"flex_attention has no dropout, and attention_dropout is {dropout}"
        return None

    def prepare(self, request: MaskRequest) -> FlexMask:
        from torch.nn.attention.flex_attention import create_block_mask

        check_rows(request.spec, request.batch)
        length = max(request.kv_len, request.q_offset + request.q_len)
        visible = request.spec.mask_mod(length, request.device)
        offset = request.q_offset

        def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return visible(b, q + offset, k)

        blocks = create_block_mask(
            mask_mod,
            B=None if request.spec.rows is None else request.batch,
            H=None,
            Q_LEN=request.q_len,
            KV_LEN=request.kv_len,
            device=request.device,
        )
        return FlexMask(blocks, request)

    def attend(
        self,
        mask: FlexMask,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float,
    ) -> Tensor:
        needs_grad = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (q_BTNH, k_BSKH, v_BSKH)
        )
        if q_BTNH.device.type != "cpu" or not needs_grad:
            return _attend(mask, q_BTNH, k_BSKH, v_BSKH, scaling)
        value = _attend(mask, q_BTNH.detach(), k_BSKH.detach(), v_BSKH.detach(), scaling)
        eager = EagerAttention()
        visible = eager.prepare(mask.request)
        differentiable = eager.attend(visible, q_BTNH, k_BSKH, v_BSKH, scaling, dropout)
        return differentiable + (value - differentiable).detach()


def _attend(
    mask: FlexMask, q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, scaling: Scaling
) -> Tensor:
    out_BNTH: Tensor = _flex_attention(q_BTNH.device.type)(
        q_BTNH.transpose(1, 2),
        k_BSKH.transpose(1, 2),
        v_BSKH.transpose(1, 2),
        block_mask=mask.blocks,
        scale=scaling.scale,
        enable_gqa=q_BTNH.shape[2] != k_BSKH.shape[2],
    )
    return out_BNTH.transpose(1, 2)


@cache
def _flex_attention(device_type: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    if device_type == "cuda":
        return torch.compile(flex_attention, dynamic=False)
    # Unfused is what a reference is for; the warning would come with every model on a CPU.
    warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
    return flex_attention
