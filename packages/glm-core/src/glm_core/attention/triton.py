"""Attention through glm_kernels: each mask as two integers per query, masked blocks skipped.

Every kind of mask lets a query see one interval of keys, and `Prefixed` some first keys besides.
`intervals` computes these bounds; nothing of the size T x S is ever made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.spec import (
    Causal,
    Full,
    LeftPadded,
    MaskSpec,
    Packed,
    Prefixed,
    PrefixLM,
    RightPadded,
    check_rows,
)
from glm_kernels import VisibleKeys, available_backends, dispatch
from glm_kernels.triton.launch import unavailable

OP = "attention"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class TritonAttention:
    """Flash attention with grouped heads, forward and backward, for GPUs.

    On a CPU it runs where TRITON_INTERPRET=1 and only for tests: slowly.
    """

    name = "triton"

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        if dropout > 0:
            return f"the kernel has no dropout, and attention_dropout is {dropout}"
        if request.dtype not in DTYPES:
            return f"the kernel takes fp32, bf16 and fp16, not {request.dtype}"
        device = request.device.type
        if (reason := no_interval(request.spec)) is not None:
            return reason
        if self.name not in available_backends(OP, device):
            return f"glm_kernels has no Triton for {device} here: {unavailable() or 'GPUs only'}"
        return None

    def prepare(self, request: MaskRequest) -> VisibleKeys:
        check_rows(request.spec, request.batch)
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
        attention = dispatch(OP, q_BTNH.device.type, self.name)
        bounds = (mask.start_BT, mask.stop_BT, mask.sink)
        out_BTNH: Tensor = attention(q_BTNH, k_BSKH, v_BSKH, *bounds, scaling.scale)
        return out_BTNH


def no_interval(spec: MaskSpec) -> str | None:
    """Returns why `visible_keys` cannot describe a mask, or None when it can."""
    spec = spec.inner if isinstance(spec, Prefixed) else spec
    while isinstance(spec, LeftPadded | RightPadded):
        spec = spec.inner
    if isinstance(spec, Prefixed):
        return "a Prefixed mask inside another mask is no interval of keys"
    return None


def visible_keys(request: MaskRequest) -> VisibleKeys:
    """Returns the bounds of the keys that each query of the request sees."""
    rows = 1 if request.spec.rows is None else request.batch
    q_T = torch.arange(request.q_offset, request.q_offset + request.q_len)
    spec, sink = request.spec, 0
    if isinstance(request.spec, Prefixed):
        spec, sink = request.spec.inner, request.spec.count
    q_BT = (q_T - sink).expand(rows, -1)
    start_BT, stop_BT = intervals(spec, q_BT, request.kv_len)
    in_prefix_BT = q_BT < 0  # columns of the tuned prefix see it and nothing else
    bounds = torch.stack((start_BT + sink, (stop_BT + sink).masked_fill(in_prefix_BT, 0)))
    start_BT, stop_BT = bounds.clamp(max=request.kv_len).int().to(request.device)
    return VisibleKeys(start_BT, stop_BT, sink)


def intervals(spec: MaskSpec, q_BT: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns the first column that each query column sees, and the one behind the last.

    Args:
        spec: any kind of mask but `Prefixed`.
        q_BT: int64 query columns on the CPU; what is returned for negative ones means nothing.
        length: a column behind all keys.
    """
    if isinstance(spec, LeftPadded | RightPadded):
        return _padded(spec, q_BT, length)
    if isinstance(spec, Packed):
        return _packed(spec, q_BT)
    stop_BT = q_BT + 1
    if isinstance(spec, Full):
        stop_BT = torch.full_like(q_BT, length)
    elif isinstance(spec, PrefixLM):
        stop_BT = torch.maximum(stop_BT, torch.tensor(spec.prefix_len)[:, None])
    elif not isinstance(spec, Causal):
        raise TypeError(f"{type(spec).__name__} has no form as intervals")
    return torch.zeros_like(q_BT), stop_BT


def _padded(spec: LeftPadded | RightPadded, q_BT: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A column of padding sees itself alone."""
    if isinstance(spec, LeftPadded):
        pad_B1 = torch.tensor(spec.pads)[:, None]
        start_BT, stop_BT = intervals(spec.inner, q_BT - pad_B1, length)
        start_BT, stop_BT, padding_BT = start_BT + pad_B1, stop_BT + pad_B1, q_BT < pad_B1
    else:
        end_B1 = torch.tensor(spec.lengths)[:, None]
        start_BT, stop_BT = intervals(spec.inner, q_BT, length)
        stop_BT, padding_BT = torch.minimum(stop_BT, end_B1), q_BT >= end_B1
    return start_BT.where(~padding_BT, q_BT), stop_BT.where(~padding_BT, q_BT + 1)


def _packed(spec: Packed, q_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The padding behind the last sample is one more sample, without a prefix."""
    starts, stops = [], []
    for segments, q_T in zip(spec.segments, q_BT, strict=True):
        sizes_S, prefixes_S = torch.tensor([*segments, (0, 0)]).unbind(1)
        ends_S = sizes_S.cumsum(0)
        starts_S = ends_S - sizes_S
        sample_T = torch.bucketize(q_T, ends_S[:-1], right=True)
        starts.append(starts_S[sample_T])
        stops.append(torch.maximum(q_T + 1, (starts_S + prefixes_S)[sample_T]))
    return torch.stack(starts), torch.stack(stops)
