"""Attention through torch's scaled_dot_product_attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.spec import Causal, Full, Prefixed, check_rows, materialize


@dataclass(frozen=True)
class SdpaMask:
    """Either a flag or a tensor, as the fused kernels want it."""

    is_causal: bool = False
    bias: Tensor | None = None
    """[B or 1, 1, T, S] in the queries' dtype: 0 where visible, -inf where not."""


class SdpaAttention:
    """Fused attention. Its softmax is in fp32: the coefficient of `Scaling` has nothing to do."""

    name = "sdpa"

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        return None

    def prepare(self, request: MaskRequest) -> SdpaMask:
        check_rows(request.spec, request.batch)
        spec = request.spec
        if isinstance(spec, Prefixed) and request.q_offset >= spec.count:
            spec = spec.inner
        sees_all = isinstance(spec, Full) or (isinstance(spec, Causal) and request.q_len == 1)
        if sees_all and request.q_offset + request.q_len == request.kv_len:
            return SdpaMask()
        if isinstance(request.spec, Causal) and request.q_offset == 0:
            return SdpaMask(is_causal=True)
        visible = materialize(
            request.spec,
            request.batch,
            request.q_len,
            request.kv_len,
            request.q_offset,
            request.device,
        )
        bias = torch.zeros(visible.shape, dtype=request.dtype, device=request.device)
        return SdpaMask(bias=bias.masked_fill_(~visible, float("-inf")))

    def attend(
        self,
        mask: SdpaMask,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float,
    ) -> Tensor:
        out_BNTH = F.scaled_dot_product_attention(
            q_BTNH.transpose(1, 2),
            k_BSKH.transpose(1, 2),
            v_BSKH.transpose(1, 2),
            attn_mask=mask.bias,
            dropout_p=dropout,
            is_causal=mask.is_causal,
            scale=scaling.scale,
            enable_gqa=q_BTNH.shape[2] != k_BSKH.shape[2],
        )
        return out_BNTH.transpose(1, 2)
