"""Attention of few queries over the KV cache on a CPU, compiled: what decoding asks for.

Each mask is two integers per query, as for Triton; keys and values are read once for all query
heads that share them, and columns that nobody sees (padding) are never read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.spec import Causal, Full, check_rows
from glm_core.attention.triton import no_interval, visible_keys
from glm_kernels import VisibleKeys, available_backends, dispatch

OP = "attention"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HEAD_DIM_STEP, MOST_HEAD_DIM = 16, 256
FEW_QUERIES = 4
"""Up to so many query columns it is the fastest: with more, sdpa's products of matrices are."""


class CompiledAttention:
    """Backend `cpu` of glm_kernels' attention.

    The kernel has no backward, and takes heads of 16, 32, .. 256 dims: for the rest PyTorch's
    formula serves, with the mask written out.
    """

    name = "cpu"

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        if request.device.type != "cpu":
            return f"it runs on CPUs, not on {request.device.type}"
        if dropout > 0:
            return f"the kernel has no dropout, and attention_dropout is {dropout}"
        if request.dtype not in DTYPES:
            return f"the kernel takes fp32, bf16 and fp16, not {request.dtype}"
        if self.name not in available_backends(OP, "cpu"):
            return "the compiled part of glm_kernels is not there: see `python hatch_build.py`"
        return no_interval(request.spec)

    def is_faster(self, request: MaskRequest) -> bool:
        """Tells whether this is the fastest backend for a request, as measured on a CPU.

        Always where query heads share keys. Where they do not, sdpa is as fast for one text in half
        precision, and for some columns at once in fp32.
        """
        if request.q_len > FEW_QUERIES or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        size = request.head_dim
        if size is not None and (size % HEAD_DIM_STEP or size > MOST_HEAD_DIM):
            return False
        if request.group == 1:
            single = request.dtype == torch.float32
            if single != (request.q_len == 1) and (single or request.batch == 1):
                return False
        return self.why_not(request, 0.0) is None

    def prepare(self, request: MaskRequest) -> VisibleKeys:
        check_rows(request.spec, request.batch)
        if request.q_len == 1 and isinstance(request.spec, Causal | Full):
            stop = request.kv_len if isinstance(request.spec, Full) else request.q_offset + 1
            return VisibleKeys(*torch.tensor([[[0]], [[stop]]], dtype=torch.int32))
        return visible_keys(request)

    def attend(
        self,
        mask: VisibleKeys,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float,
    ) -> Tensor:
        attention = dispatch(OP, "cpu", self.name)
        bounds = (mask.start_BT, mask.stop_BT, mask.sink)
        out_BTNH: Tensor = attention(q_BTNH, k_BSKH, v_BSKH, *bounds, scaling.scale)
        return out_BTNH
