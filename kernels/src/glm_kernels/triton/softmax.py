"""Softmax of scaled, masked attention scores: one pass over the scores, arithmetic in fp32.

    p = softmax(scores * scale) over the visible keys;  grad scores = scale p (g - sum(g p))

Letters: B batch, N heads, T queries, S keys.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.triton.launch import power_of_two, warps_for

TILE = 2048
"""Scores that a program holds at a time where rows are short."""


def scale_mask_softmax(scores_BNTS: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """`glm_kernels.scale_mask_softmax`: the mask is read in its own shape, never expanded."""
    out: Tensor = _ScaleMaskSoftmax.apply(scores_BNTS, mask, scale)
    return out


@triton.jit
def _softmax(
    scores,
    mask,
    out,
    mask_stride_b,
    mask_stride_n,
    mask_stride_t,
    mask_stride_s,
    N,
    T,
    S,
    num_rows,
    scale,
    HAS_MASK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    s = tl.arange(0, BLOCK_S)
    at = row[:, None] * S + s[None, :]
    visible = (row < num_rows)[:, None] & (s < S)[None, :]
    value = tl.load(scores + at, visible, other=0.0).to(tl.float32) * scale
    if HAS_MASK:
        place = (row // (N * T)) * mask_stride_b + (row // T % N) * mask_stride_n
        place = place + (row % T) * mask_stride_t
        place = place[:, None] + s[None, :] * mask_stride_s
        visible &= tl.load(mask + place, visible, other=0) != 0
    value = tl.where(visible, value, float("-inf"))
    largest = tl.max(value, 1)
    largest = tl.where(largest == float("-inf"), 0.0, largest)  # a row without a visible key
    weight = tl.where(visible, tl.exp(value - largest[:, None]), 0.0)
    total = tl.sum(weight, 1)
    weight = weight / tl.where(total == 0.0, 1.0, total)[:, None]
    inside = (row < num_rows)[:, None] & (s < S)[None, :]
    tl.store(out + at, weight.to(out.dtype.element_ty), inside)


@triton.jit
def _softmax_grad(
    grad, out, grad_scores, S, num_rows, scale, ROWS: tl.constexpr, BLOCK_S: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    s = tl.arange(0, BLOCK_S)
    at = row[:, None] * S + s[None, :]
    inside = (row < num_rows)[:, None] & (s < S)[None, :]
    weight = tl.load(out + at, inside, other=0.0).to(tl.float32)
    incoming = tl.load(grad + at, inside, other=0.0).to(tl.float32)
    centred = incoming - tl.sum(incoming * weight, 1)[:, None]
    total = scale * weight * centred
    tl.store(grad_scores + at, total.to(grad_scores.dtype.element_ty), inside)


class _ScaleMaskSoftmax(torch.autograd.Function):
    """Saves only its result, in the dtype of the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        scores = scores.contiguous()
        out = torch.empty_like(scores)
        ctx.save_for_backward(out)
        ctx.scale = scale
        if scores.numel():
            B, N, T, S = _four_dims(scores).shape
            rows, blocks = _tile(S)
            mask_BNTS = None if mask is None else _four_dims(mask.expand(scores.shape))
            strides = (0, 0, 0, 0) if mask_BNTS is None else mask_BNTS.stride()
            _softmax[(triton.cdiv(B * N * T, rows),)](
                *(scores, mask_BNTS, out, *strides, N, T, S, B * N * T, scale),
                HAS_MASK=mask is not None,
                ROWS=rows,
                BLOCK_S=blocks,
                num_warps=warps_for(rows * blocks),
            )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        grad_scores = torch.empty_like(out)
        if out.numel():
            S = out.shape[-1]
            num_rows = out.numel() // S
            rows, blocks = _tile(S)
            _softmax_grad[(triton.cdiv(num_rows, rows),)](
                *(grad.contiguous(), out, grad_scores, S, num_rows, ctx.scale),
                ROWS=rows,
                BLOCK_S=blocks,
                num_warps=warps_for(rows * blocks),
            )
        return grad_scores, None, None


def _tile(S: int) -> tuple[int, int]:
    """Return the rows and columns that a program holds."""
    block = power_of_two(S)
    return max(1, TILE // block), block


def _four_dims(tensor: Tensor) -> Tensor:
    """View as [B, N, T, S]; more leading dims are flattened, by a copy where they are expanded."""
    while tensor.dim() < 4:
        tensor = tensor.unsqueeze(0)
    return tensor if tensor.dim() == 4 else tensor.flatten(0, -4)
