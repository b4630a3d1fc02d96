"""Attention written out: the oracle of the other backends, and the one that serves everything."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.spec import materialize
from glm_kernels import scale_mask_softmax


class EagerAttention:
    """softmax(c * (q * scale / c) k^T + mask) v, with the softmax in fp32."""

    name = "eager"

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        return None

    def prepare(self, request: MaskRequest) -> Tensor:
        """Returns bool [B or 1, 1, T, S]."""
        return materialize(
            request.spec,
            request.batch,
            request.q_len,
            request.kv_len,
            request.q_offset,
            request.device,
        )

    def attend(
        self,
        mask: Tensor,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float,
    ) -> Tensor:
        group = q_BTNH.shape[2] // k_BSKH.shape[2]
        q_BNTH = rearrange(q_BTNH, "b t n h -> b n t h")
        k_BNSH = repeat(k_BSKH, "b s k h -> b (k g) s h", g=group)
        v_BNSH = repeat(v_BSKH, "b s k h -> b (k g) s h", g=group)
        weights_BNTS = self.weights(q_BNTH, k_BNSH, mask, scaling)
        weights_BNTS = F.dropout(weights_BNTS, dropout, training=dropout > 0)
        return rearrange(torch.matmul(weights_BNTS, v_BNSH), "b n t h -> b t n h")

    def weights(self, q_BNTH: Tensor, k_BNSH: Tensor, mask: Tensor, scaling: Scaling) -> Tensor:
        """Returns the attention weights, [B, N, T, S] in the queries' dtype."""
        scores_BNTS = torch.matmul(
            q_BNTH * (scaling.scale / scaling.coefficient), k_BNSH.transpose(-1, -2)
        )
        return scale_mask_softmax(scores_BNTS, mask, scaling.coefficient)
