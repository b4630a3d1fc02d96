"""Flash attention over one interval of keys per query: see `glm_kernels.attention`.

    p = softmax(scale q k^T) over the visible keys;  out = p v
    dv = p^T dout;  ds = scale p (dout v^T - sum(dout out));  dq = ds k;  dk = ds^T q

The scores of a block live in registers and are never written; the backward computes them again
from the saved logarithm of each row's sum. Blocks of keys outside the intervals of a block of
queries are not visited, and blocks inside all of them are not masked. The query heads that share a
key head are rows of one block, so keys are read once for all of them.
Sources: arXiv 2205.14135 and 2307.08691 (tiling, backward), 2305.13245 (grouped queries).

Letters: B batch, T queries, S keys, N query heads, K key heads, G = N / K, H head dim;
row m = t * G + g is query t of head g of a group, M = T * G.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from glm_kernels.triton.attention_backward import backward_kv, backward_q
from glm_kernels.triton.attention_forward import combine, forward
from glm_kernels.triton.launch import device_of, matmul_precision, num_programs, power_of_two
from glm_kernels.triton.tuning import lookup

LOG2E = math.log2(math.e)
SCAN = 1024
"""Queries whose intervals are looked at together."""
FEW = 16
"""At most so many rows are decoding: their keys are shared out among programs."""
MOST_PAIRS = 65535
"""Programs that the second axis of a launch can have."""
SPLIT_KEYS, MAX_SPLITS = 256, 32
"""Fewest keys of a program then, and most programs."""


def attention(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    start_BT: Tensor,
    stop_BT: Tensor,
    sink: int,
    scale: float,
) -> Tensor:
    """`glm_kernels.attention`: a custom op where gradients or torch.compile need one."""
    tensors = (q_BTNH, k_BSKH, v_BSKH)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    run = _forward_op if needs_grad or torch.compiler.is_compiling() else _launch_forward
    out: Tensor = run(q_BTNH, k_BSKH, v_BSKH, start_BT, stop_BT, sink, scale)[0]
    return out


def _launch_forward(
    q: Tensor, k: Tensor, v: Tensor, start: Tensor, stop: Tensor, sink: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Return out [B, T, N, H] and the base-2 logarithm of each row's sum, fp32 [B, K, T * G]."""
    q, k, v = (_dense_heads(tensor) for tensor in (q, k, v))
    (B, T, N, H), (_, S, K, _) = q.shape, k.shape
    out = torch.empty((B, T, N, H), dtype=q.dtype, device=q.device)
    lse = torch.empty((B, K, T * (N // K)), dtype=torch.float32, device=q.device)
    if not out.numel():
        return out, lse
    if B * K > MOST_PAIRS:
        raise ValueError(
            f"a batch of {B} with {K} key heads: attention takes at most {MOST_PAIRS} of both "
            "together; split the batch"
        )
    start, stop, sink = start.contiguous(), stop.contiguous(), min(sink, S)
    few = T * (N // K) <= FEW
    config = lookup("attention_forward", _shape_key(q, few), q.device)
    blocks = triton.cdiv(T * (N // K), config["BLOCK_M"])
    splits = _splits(q.device, blocks * B * K, S) if few else 1
    part, part_lse = out, lse
    if splits > 1:
        part = torch.empty((splits, *out.shape), dtype=torch.float32, device=q.device)
        part_lse = torch.empty((splits, *lse.shape), dtype=torch.float32, device=q.device)
    sizes = {"H": H, "GROUP": N // K, "SPLITS": splits, "BLOCK_H": _block_h(H)}
    with device_of(q):
        forward[(blocks, B * K, splits)](
            *(q, k, v, start, stop, part, part_lse, *_strides(q, k, v, start), T, S, N, sink),
            scale * LOG2E,
            **sizes,
            PRECISION=matmul_precision(q.dtype),
            **config,
        )
        if splits > 1:
            combine[(T * (N // K), B * K)](part, part_lse, out, lse, T, N, **sizes)
    return out, lse


def _launch_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: Tensor,
    stop: Tensor,
    sink: int,
    scale: float,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    q, k, v = (_dense_heads(tensor) for tensor in (q, k, v))
    grad_out = grad_out.contiguous()
    grad_q, grad_k, grad_v = (
        torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in (q, k, v)
    )
    (B, T, N, H), (_, S, K, _) = q.shape, k.shape
    if not out.numel() or not k.numel():
        return grad_q.zero_(), grad_k.zero_(), grad_v.zero_()
    start, stop, sink = _clamped(start, stop, sink, S)
    delta = torch.empty_like(lse)
    shape = _shape_key(q)
    config_q, config_kv = (lookup(f"attention_grad_{x}", shape, q.device) for x in ("q", "kv"))
    strides = _strides(q, k, v, start)
    scales = (scale, scale * LOG2E)
    shared: dict[str, Any] = {
        **{"H": H, "GROUP": N // K, "BLOCK_H": _block_h(H)},
        "PRECISION": matmul_precision(q.dtype),
    }
    with device_of(q):
        backward_q[(triton.cdiv(T * (N // K), config_q["BLOCK_M"]), B * K)](
            *(q, k, v, start, stop, out, lse, grad_out, grad_q, delta, *strides, T, N, sink),
            *scales,
            **{**shared, **config_q},
        )
        backward_kv[(triton.cdiv(S, config_kv["BLOCK_N"]), B * K)](
            *(q, k, v, start, stop, lse, delta, grad_out, grad_k, grad_v, *strides, T, S, N, sink),
            *scales,
            SCAN=min(SCAN, power_of_two(T)),
            **{**shared, **config_kv},
        )
    return grad_q, grad_k, grad_v


def _dense_heads(tensor: Tensor) -> Tensor:
    """The kernels take any strides but that of the head's dims, which must lie side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _clamped(start: Tensor, stop: Tensor, sink: int, S: int) -> tuple[Tensor, Tensor, int]:
    """Nobody sees keys that are not there."""
    return start.clamp(min=0).contiguous(), stop.clamp(max=S).contiguous(), min(sink, S)


def _strides(q: Tensor, k: Tensor, v: Tensor, start: Tensor) -> tuple[int, ...]:
    bound_stride = 0 if start.shape[0] == 1 else start.stride(0)
    return *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], bound_stride


def _block_h(H: int) -> int:
    return max(16, power_of_two(H))


def _shape_key(q: Tensor, few: bool = False) -> str:
    """Return the class of shapes by which `tuning` chooses."""
    wide = "w" if q.dtype == torch.float32 else ""
    return ("few" if few else f"h{_block_h(q.shape[-1])}") + wide


def _splits(device: torch.device, programs: int, S: int) -> int:
    """Return how many programs share the keys of a row, so that few rows keep a GPU busy."""
    wanted = min(2 * num_programs(device) // programs, S // SPLIT_KEYS, MAX_SPLITS)
    return power_of_two(wanted) if wanted > 1 else 1


_forward_op = torch.library.custom_op("glm_kernels::attention", _launch_forward, mutates_args=())
_backward_op = torch.library.custom_op(
    "glm_kernels::attention_grad", _launch_backward, mutates_args=()
)


@_forward_op.register_fake
def _(q: Tensor, k: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    B, T, N, _ = q.shape
    K = k.shape[2]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    return out, torch.empty((B, K, T * (N // K)), dtype=torch.float32, device=q.device)


@_backward_op.register_fake
def _(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, ...]:
    grads = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    return tuple(grads)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.sink, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad_out: Tensor, _grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out, lse = ctx.saved_tensors
    grads = _backward_op(grad_out, *tensors, ctx.sink, ctx.scale, out, lse)
    return (*grads, None, None, None, None)


_forward_op.register_autograd(_backward, setup_context=_save)
