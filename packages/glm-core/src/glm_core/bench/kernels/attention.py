"""Attention with prefix-LM and packed masks, as the model calls it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_core.attention import Packed, PrefixLM
from glm_core.attention.backend import MaskRequest, Scaling
from glm_core.attention.dispatch import PreparedAttention, prepare_attention
from glm_core.attention.spec import MaskSpec, materialize
from glm_core.bench.kernels.case import Case, Op
from glm_core.bench.kernels.fused import Maker
from glm_core.bench.kernels.goal import ATTENTION
from glm_kernels import VisibleKeys, attention, dispatch

FLEX, DENSE = "flex_attention", "SDPA, dense mask"
SAMPLES = 4
"""In a packed row."""


def attention_prefix(make: Maker) -> Case:
    """The first half of the row sees itself in both directions."""
    batch, length, _, _ = make.sizes.attention
    return _case(make, "attention_prefix", PrefixLM((length // 2,) * batch))


def attention_packed(make: Maker) -> Case:
    """Several samples in a row, half of each a prefix."""
    batch, length, _, _ = make.sizes.attention
    size = length // SAMPLES
    return _case(make, "attention_packed", Packed((((size, size // 2),) * SAMPLES,) * batch))


def attention_decode(make: Maker) -> Case:
    """One query over the cache, heads in groups: forward only."""
    sizes, device = make.sizes, make.device
    q = make.leaf(1, 1, sizes.heads, sizes.head_dim).detach()
    k, v = (make.leaf(1, sizes.columns, sizes.kv_heads, sizes.head_dim).detach() for _ in range(2))
    stop_BT = torch.full((1, 1), sizes.columns, dtype=torch.int32, device=device)
    visible, scale = VisibleKeys(torch.zeros_like(stop_BT), stop_BT), sizes.head_dim**-0.5

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, visible, scale)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        groups = q.shape[2] // k.shape[2]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        scores = (q @ k.transpose(2, 3)) * scale
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        return (weights @ v).transpose(1, 2)

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=True)
        return out.transpose(1, 2)

    return Case(
        op="attention_decode",
        shape=f"1+{sizes.columns}x{sizes.heads}/{sizes.kv_heads}x{sizes.head_dim}",
        dtype=make.dtype,
        inputs=(q, k, v),
        ours=ours,
        code=dispatch("attention", device.type).__module__.removeprefix("glm_kernels."),
        formula=formula,
        peers={"SDPA": fused},
    )


def _case(make: Maker, op: str, spec: MaskSpec) -> Case:
    """Masks are made once for all layers, so no side makes its mask in the measured time."""
    batch, length, heads, head_dim = make.sizes.attention
    request = MaskRequest(spec, batch, length, length, 0, make.device, make.dtype)
    prepared, scaling = _prepared(request), Scaling(1 / math.sqrt(head_dim))
    mask_B1TS = materialize(spec, batch, length, length, 0, make.device)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return prepared[torch.is_grad_enabled()](q, k, v, scaling)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        scores = (q @ k.transpose(2, 3)) * scaling.scale
        scores = scores.masked_fill(~mask_B1TS, torch.finfo(scores.dtype).min)
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        return (weights @ v).transpose(1, 2)

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B1TS, scale=scaling.scale)
        return out.transpose(1, 2)

    shape = (batch, length, heads, head_dim)
    return Case(
        op=op,
        shape="x".join(map(str, shape)),
        dtype=make.dtype,
        inputs=tuple(make.leaf(*shape) for _ in range(3)),
        ours=ours,
        code="/".join(dict.fromkeys(one.backend.name for one in prepared.values())),
        formula=formula,
        peers={DENSE: dense},
        compiled={FLEX: _flex(request, scaling)},
        goal=ATTENTION,
    )


def _prepared(request: MaskRequest) -> dict[bool, PreparedAttention]:
    """The automatic choice without gradients and with them."""
    found = {}
    for needs_grad in (False, True):
        with torch.set_grad_enabled(needs_grad):
            found[needs_grad] = prepare_attention(request)
    return found


def _flex(request: MaskRequest, scaling: Scaling) -> Op:
    """Compiled when it is called first: on a CPU that takes its time, and works forward only."""
    ready: list[tuple[Any, Any]] = []

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if not ready:
            visible = request.spec.mask_mod(request.kv_len, request.device)
            blocks = create_block_mask(
                lambda b, h, q, k: visible(b, q, k),
                B=None if request.spec.rows is None else request.batch,
                H=None,
                Q_LEN=request.q_len,
                KV_LEN=request.kv_len,
                device=request.device,
            )
            ready.append((torch.compile(flex_attention, dynamic=False), blocks))
        compiled, blocks = ready[0]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out: Tensor = compiled(q, k, v, block_mask=blocks, scale=scaling.scale)
        return out.transpose(1, 2)

    return run


FORWARD_ONLY = ("attention_decode",)
CASES: dict[str, Callable[[Maker], Case]] = {
    "attention_prefix": attention_prefix,
    "attention_packed": attention_packed,
    "attention_decode": attention_decode,
}
