"""Loss of a linear head: the logits of a chunk become their gradient in two passes over them.

    loss = logsumexp(logits) - logits[label];  grad logits = softmax(logits) - onehot(label)

The chunks and the matrix products are those of `glm_kernels.cross_entropy`, so that all the logits
never exist. Softmax and loss are in fp32 whatever the dtype of the logits, and no value is read
back to the CPU but the number of kept rows. Source: arXiv 2410.10989, section 3.2.

Letters: M rows, D hidden size, V vocabulary, C rows of a chunk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from glm_kernels.cross_entropy import Head, in_chunks
from glm_kernels.triton.launch import power_of_two, warps_for

LARGEST_BLOCK = 8192
"""Most logits that a program holds at a time."""


def fused_linear_cross_entropy(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    bias_V: Tensor | None,
    ignore_index: int,
    chunk_size: int | None,
) -> Tensor:
    """`glm_kernels.fused_linear_cross_entropy`; a label outside the vocabulary makes it NaN."""
    return in_chunks(_Head, hidden_MD, weight_VD, labels_M, bias_V, ignore_index, chunk_size)


class _Head(Head):
    def losses(self, hidden_CD: Tensor, labels_C: Tensor, logits_CV: Tensor) -> Tensor:
        losses_C = torch.empty(labels_C.shape[0], dtype=torch.float32, device=logits_CV.device)
        V = logits_CV.shape[1]
        block = min(power_of_two(V), LARGEST_BLOCK)
        if losses_C.numel():
            _cross_entropy[(losses_C.shape[0],)](
                *(logits_CV, labels_C, losses_C, V),
                GRADIENT=self.needs_gradients,
                BLOCK_V=block,
                num_warps=warps_for(block),
            )
        return losses_C


@triton.jit
def _cross_entropy(logits, labels, losses, V, GRADIENT: tl.constexpr, BLOCK_V: tl.constexpr):
    """One row: its loss, and its gradient in place of its logits."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * V
    label = tl.load(labels + row)
    largest = float("-inf")
    total = 0.0
    for first in range(0, V, BLOCK_V):
        v = first + tl.arange(0, BLOCK_V)
        value = tl.load(logits + v, v < V, other=float("-inf")).to(tl.float32)
        new = tl.maximum(largest, tl.max(value))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(value - new))
        largest = new
    logarithm = largest + tl.log(total)
    known = (label >= 0) & (label < V)
    picked = tl.load(logits + label, known, other=float("nan")).to(tl.float32)
    tl.store(losses + row, logarithm - picked)
    if GRADIENT:
        tl.debug_barrier()  # the label's logit is read before it is overwritten
        sound = tl.where(known, 1.0, float("nan"))
        for first in range(0, V, BLOCK_V):
            v = first + tl.arange(0, BLOCK_V)
            value = tl.load(logits + v, v < V, other=float("-inf")).to(tl.float32)
            grad = (tl.exp(value - logarithm) - tl.where(v == label, 1.0, 0.0)) * sound
            tl.store(logits + v, grad.to(logits.dtype.element_ty), v < V)
