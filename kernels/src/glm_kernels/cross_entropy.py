"""Cross-entropy of a linear head, without ever holding all the logits.

The rows are taken in chunks. The forward of a chunk turns its logits into their gradient in place
and multiplies it straight into the gradients of the hidden states and of the weight, so that the
backward has only to scale these two (the way of Liger Kernel, arXiv 2410.10989, section 3.2).
Three matrix products in all, where recomputing the logits in the backward would take four.

Dimension letters: M rows, D hidden size, V vocabulary, C rows of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.cpu.blocks import blocks
from glm_kernels.registry import dispatch, register

CHUNK_BYTES = 128 * 2**20
"""Largest size of the logits of one chunk when the caller gives no chunk_size, in bytes."""

CHUNK_ROWS = 1024
"""Most rows of a chunk: more of them leave the cache and make nothing faster."""

ROW_STEP = 256
"""The last chunk is padded to a multiple of this many rows."""

LIKELY = 0.5
"""Above this probability a low-precision `p - 1` is taken from the other probabilities."""

VANISHING = 1e-30
"""Below this probability, or where the dtype has fewer bits for it than for 1, the loss is taken
from freshly computed logits, not from log(p)."""


def fused_linear_cross_entropy(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    chunk_size: int | None = None,
) -> Tensor:
    """Sum of the cross-entropies of ``hidden @ weight.T + bias`` against the labels.

    The products are taken in the autocast dtype where autocast is on, their sums over chunks and
    the loss in fp32. A gradient may be scaled, accumulated and taken again, not differentiated.

    Args:
        hidden_MD: [M, D].
        weight_VD: [V, D]; may be the embedding table itself.
        labels_M: [M] int64 in [0, V), or ignore_index.
        bias: [V] or None.
        ignore_index: rows with this label are dropped before anything is computed.
        chunk_size: rows whose logits exist at a time; None chooses it, at most 128 MiB.

    Returns:
        the sum over the kept rows in nats, an fp32 scalar (fp64 for fp64 inputs).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, a chunk_size below 1, or,
            on the CPU, a label outside the vocabulary.
    """
    _check_shapes(hidden_MD, weight_VD, labels_M, bias, chunk_size)
    _check_kinds(hidden_MD, weight_VD, labels_M, bias)
    out: Tensor = dispatch("fused_linear_cross_entropy", hidden_MD.device.type)(
        hidden_MD, weight_VD, labels_M, bias, ignore_index, chunk_size
    )
    return out


def _check_shapes(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    bias: Tensor | None,
    chunk_size: int | None,
) -> None:
    if hidden_MD.dim() != 2 or weight_VD.dim() != 2 or hidden_MD.shape[1] != weight_VD.shape[1]:
        raise ValueError(
            f"hidden has shape {tuple(hidden_MD.shape)} and weight {tuple(weight_VD.shape)}: they "
            "must be [M, D] and [V, D]; flatten the batch first, hidden.flatten(0, -2)"
        )
    if labels_M.shape != hidden_MD.shape[:1]:
        raise ValueError(
            f"labels has shape {tuple(labels_M.shape)}: it must be [{hidden_MD.shape[0]}], one "
            "label for each row of hidden; flatten it as you flattened hidden"
        )
    if bias is not None and bias.shape != weight_VD.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}: it must be [{weight_VD.shape[0]}]")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} must be at least 1, or None to choose it")


def _check_kinds(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> None:
    parts = (hidden, weight, *(() if bias is None else (bias,)))
    if not all(part.is_floating_point() for part in parts) or labels.dtype != torch.int64:
        raise ValueError(
            f"hidden is {hidden.dtype}, weight {weight.dtype}, labels {labels.dtype}: labels must "
            "be torch.int64, as labels.long() is, and the others floating point"
        )
    for name, part in (("weight", weight), ("labels", labels), ("bias", bias)):
        if part is not None and part.device != hidden.device:
            raise ValueError(
                f"{name} is on {part.device} but hidden is on {hidden.device}: move one of them"
            )


@register("fused_linear_cross_entropy", "torch")
def _chunked(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    bias_V: Tensor | None,
    ignore_index: int,
    chunk_size: int | None,
) -> Tensor:
    return in_chunks(Head, hidden_MD, weight_VD, labels_M, bias_V, ignore_index, chunk_size)


def in_chunks(
    head_type: type[Head],
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    bias_V: Tensor | None,
    ignore_index: int,
    chunk_size: int | None,
) -> Tensor:
    """Return the loss; `head_type` says how the logits of a chunk become their gradient."""
    device = hidden_MD.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else hidden_MD.dtype
    rows = chunk_size or min(CHUNK_ROWS, CHUNK_BYTES // (weight_VD.shape[0] * dtype.itemsize) + 1)
    if torch.compiler.is_compiling():
        return _for_compiler(hidden_MD, weight_VD, bias_V, labels_M, ignore_index, rows, dtype)
    loss: Tensor = _LinearCrossEntropy.apply(
        *(hidden_MD, weight_VD, bias_V, labels_M, ignore_index, rows, dtype),
        *(torch.is_grad_enabled(), head_type),
    )
    return loss


def _for_compiler(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    labels_M: Tensor,
    ignore_index: int,
    rows: int,
    dtype: torch.dtype,
) -> Tensor:
    """Call the same computation as one opaque operator: tracing it would unroll the chunks."""
    needs = [
        tensor is not None and torch.is_grad_enabled() and tensor.requires_grad
        for tensor in (hidden_MD, weight_VD, bias_V)
    ]
    loss: Tensor = torch.ops.glm_kernels.linear_cross_entropy(
        hidden_MD, weight_VD, bias_V, labels_M, ignore_index, rows, dtype, *needs
    )[0]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """The eager path: gradients made in the forward, scaled in the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        labels_M: Tensor,
        ignore_index: int,
        rows: int,
        dtype: torch.dtype,
        with_gradients: bool,
        head_type: type[Head],
    ) -> Tensor:
        needs = [with_gradients and need for need in ctx.needs_input_grad[:3]]
        loss, *gradients = _loss_and_gradients(
            hidden_MD, weight_VD, bias_V, labels_M, ignore_index, rows, dtype, needs, head_type
        )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [
            None if gradient is None else gradient * grad_loss for gradient in ctx.saved_tensors
        ]
        return (*scaled, None, None, None, None, None, None)


def _loss_and_gradients(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    labels_M: Tensor,
    ignore_index: int,
    rows: int,
    dtype: torch.dtype,
    needs: list[bool],
    head_type: type[Head],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return the loss sum and its gradients by hidden, weight and bias, where `needs` asks."""
    kept_K = (labels_M != ignore_index).nonzero()[:, 0]
    count = kept_K.shape[0]
    labels_K = labels_M[kept_K]
    _check_labels(labels_K, weight_VD.shape[0])
    # Padded to few different sizes: buffers and scratch memory whose size changes with every batch
    # leave holes in the C library's heap, which then grows by gigabytes in a long training.
    step = min(ROW_STEP, rows)
    hidden_PD = hidden_MD.new_zeros(-(-count // step) * step, hidden_MD.shape[1], dtype=dtype)
    hidden_PD[:count] = hidden_MD[kept_K]
    head = head_type(weight_VD, bias_V, dtype, needs)
    logits_CV = hidden_PD.new_empty(min(rows, hidden_PD.shape[0]), weight_VD.shape[0])
    grad_PD = torch.empty_like(hidden_PD) if needs[0] else None
    loss = torch.zeros((), dtype=head.sum_dtype, device=hidden_MD.device)
    with torch.autocast(hidden_MD.device.type, enabled=False):
        for start in range(0, count, rows):
            chunk = slice(start, start + rows)
            grad_CD = None if grad_PD is None else grad_PD[chunk]
            loss += head.chunk(hidden_PD[chunk], labels_K[chunk], logits_CV, grad_CD)
    if head.grad_VD is not None and not head.has_sum:
        head.grad_VD.zero_()
    grad_MD = None
    if grad_PD is not None:
        grad_MD = torch.zeros_like(hidden_MD, dtype=dtype)
        grad_MD.index_copy_(0, kept_K, grad_PD[:count])
    return (
        loss,
        None if grad_MD is None else grad_MD.to(hidden_MD.dtype),
        None if head.grad_VD is None else head.grad_VD.to(weight_VD.dtype),
        None if head.grad_V is None or bias_V is None else head.grad_V.to(bias_V.dtype),
    )


def _check_labels(labels_K: Tensor, vocab_size: int) -> None:
    """Refuse labels outside the vocabulary, where looking costs no device synchronisation."""
    if labels_K.device.type != "cpu" or not labels_K.numel():
        return
    for label in (int(labels_K.min()), int(labels_K.max())):
        if not 0 <= label < vocab_size:
            raise ValueError(
                f"labels has {label}, outside the vocabulary: the weight has {vocab_size} rows. "
                "Is the tokenizer the one of this model, and is ignore_index the one of the labels?"
            )


class Head:
    """The linear head, and the sums of its gradients over the chunks."""

    def __init__(
        self, weight_VD: Tensor, bias_V: Tensor | None, dtype: torch.dtype, needs: list[bool]
    ) -> None:
        self.weight_VD = weight_VD.detach().to(dtype)
        self.bias_V = None if bias_V is None else bias_V.detach().to(dtype)
        self.sum_dtype = torch.promote_types(dtype, torch.float32)
        self.needs_gradients = any(needs)
        vocab_size = weight_VD.shape[0]
        self.grad_VD = torch.empty_like(self.weight_VD, dtype=self.sum_dtype) if needs[1] else None
        self.has_sum = False  # grad_VD is written by the first chunk, added to by the others
        self.grad_V = (
            self.weight_VD.new_zeros(vocab_size, dtype=self.sum_dtype) if needs[2] else None
        )
        self.product_VD: Tensor | None = None

    def chunk(
        self, hidden_CD: Tensor, labels_C: Tensor, buffer_CV: Tensor, grad_CD: Tensor | None
    ) -> Tensor:
        """Return the loss sum of a chunk; write `grad_CD` and add to the weight's gradient.

        Rows of `hidden_CD` beyond the labels are padding.
        """
        logits_CV = buffer_CV[: hidden_CD.shape[0]]
        if self.bias_V is None:
            torch.mm(hidden_CD, self.weight_VD.t(), out=logits_CV)
        else:
            torch.addmm(self.bias_V, hidden_CD, self.weight_VD.t(), out=logits_CV)
        real = labels_C.shape[0]
        loss = self.losses(hidden_CD[:real], labels_C, logits_CV[:real]).sum()
        logits_CV[real:] = 0
        if grad_CD is not None:
            torch.mm(logits_CV, self.weight_VD, out=grad_CD)
        if self.grad_VD is not None:
            self._add_weight_gradient(self.grad_VD, hidden_CD, logits_CV)
        if self.grad_V is not None:
            self.grad_V += logits_CV.sum(0, dtype=self.sum_dtype)
        return loss

    def losses(self, hidden_CD: Tensor, labels_C: Tensor, logits_CV: Tensor) -> Tensor:
        """Return the loss of each row; make `logits_CV` their gradient in place."""
        probs_CV = torch.softmax(logits_CV, dim=-1, out=logits_CV)
        rows_C = torch.arange(labels_C.shape[0], device=labels_C.device)
        probability_C = probs_CV[rows_C, labels_C].to(self.sum_dtype)
        losses_C = -probability_C.log()
        residual_C = probability_C - 1
        if probs_CV.dtype != self.sum_dtype:
            likely = (probability_C > LIKELY).nonzero()[:, 0]
            # p close to 1 has few bits left for 1 - p; the sum of the others has them all
            others_CV = probs_CV[likely]
            others_CV[rows_C[: likely.shape[0]], labels_C[likely]] = 0
            others_C = others_CV.sum(-1, dtype=self.sum_dtype)
            residual_C[likely] = -others_C
            losses_C[likely] = -torch.log1p(-others_C)
        least = max(VANISHING, torch.finfo(probs_CV.dtype).tiny)
        vanishing = (probability_C < least).nonzero()[:, 0]
        if vanishing.shape[0]:
            losses_C[vanishing] = self._from_logits(hidden_CD[vanishing], labels_C[vanishing])
        if self.needs_gradients:
            # not scatter_, which copies the whole of its input on the CPU
            probs_CV[rows_C, labels_C] = residual_C.to(probs_CV.dtype)
        return losses_C

    def _from_logits(self, hidden_CD: Tensor, labels_C: Tensor) -> Tensor:
        logits_CV = torch.nn.functional.linear(hidden_CD, self.weight_VD, self.bias_V)
        return torch.nn.functional.cross_entropy(
            logits_CV.to(self.sum_dtype), labels_C, reduction="none"
        )

    def _add_weight_gradient(self, grad_VD: Tensor, hidden_CD: Tensor, logits_CV: Tensor) -> None:
        if logits_CV.dtype == grad_VD.dtype:
            grad_VD.addmm_(logits_CV.t(), hidden_CD, beta=int(self.has_sum))
        else:
            if self.product_VD is None:
                self.product_VD = torch.empty_like(self.weight_VD)
            torch.mm(logits_CV.t(), hidden_CD, out=self.product_VD)
            if self.has_sum:
                _add_in_blocks(grad_VD, self.product_VD)
            else:
                grad_VD.copy_(self.product_VD)
        self.has_sum = True


def _add_in_blocks(total_VD: Tensor, addend_VD: Tensor) -> None:
    """Add in place; the conversion that PyTorch makes on the CPU then stays in the cache."""
    if total_VD.device.type != "cpu":
        total_VD.add_(addend_VD)
        return
    for rows in blocks(*total_VD.shape):
        total_VD[rows].add_(addend_VD[rows])


@torch.library.custom_op("glm_kernels::linear_cross_entropy", mutates_args=())
def _linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    ignore_index: int,
    rows: int,
    dtype: torch.dtype,
    needs_hidden: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    needs = [needs_hidden, needs_weight, needs_bias]
    loss, *gradients = _loss_and_gradients(
        hidden, weight, bias, labels, ignore_index, rows, dtype, needs, Head
    )
    first, second, third = (
        loss.new_empty(0) if gradient is None else gradient for gradient in gradients
    )
    return loss, first, second, third


@_linear_cross_entropy.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    ignore_index: int,
    rows: int,
    dtype: torch.dtype,
    needs_hidden: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss = hidden.new_empty((), dtype=torch.promote_types(dtype, torch.float32))
    empty = loss.new_empty(0)
    return (
        loss,
        torch.empty_like(hidden) if needs_hidden else empty,
        torch.empty_like(weight) if needs_weight else loss.new_empty(0),
        torch.empty_like(bias) if bias is not None and needs_bias else loss.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.needs = inputs[-3:]
    ctx.save_for_backward(*output[1:])


def _scale(ctx: Any, grad_loss: Tensor, *_unused: Tensor) -> tuple[Tensor | None, ...]:
    scaled = [
        gradient * grad_loss if need else None
        for gradient, need in zip(ctx.saved_tensors, ctx.needs, strict=True)
    ]
    return (*scaled, None, None, None, None, None, None, None)


_linear_cross_entropy.register_autograd(_scale, setup_context=_save)
