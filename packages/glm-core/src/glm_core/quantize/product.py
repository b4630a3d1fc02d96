"""x W^T with a W that stays as it is stored: block by block it is dequantized or packed.

Letters: M tokens, I columns of the weight (inputs), O rows (outputs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_core.quantize.rows import multiply_out, row_chunks
from glm_kernels import ActivationBits, linear_weight_only, pack_weight

_FEW_TOKENS = 32
_BLOCK_FEW, _BLOCK_MANY = 1 << 19, 1 << 21
"""Elements of the weight dequantized at once on the CPU, so that they are still in its cache when
they are multiplied: measured, a 4096 x 11008 weight of 8 bits and one token take 8 ms on two cores
(bf16: 14 ms) instead of 52 ms (bf16: 120 ms) when the whole of it is dequantized first."""
_BLOCK_DEVICE = 1 << 25
_PACKED_FEW, _PACKED_MANY = 1 << 22, 1 << 24
"""Elements packed at once: for every block, the activations of many tokens are quantized anew."""
_PACKED_ROWS = 16
"""Rows that stay together in a packed weight."""


def product_by_blocks(
    x: Tensor, levels: Tensor, scale: Tensor, zero: Tensor | None, bits: int
) -> Tensor:
    """x W^T, [..., O], for x [..., I]; gradients reach x. W as `QuantizedMatrix` has it.

    W is dequantized on the way: for every device, dtype and layout.
    """
    out: Tensor = _ProductByBlocks.apply(x, levels, scale, zero, bits)
    return out


def product_packing(
    x: Tensor,
    levels: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bits: int,
    bias: Tensor | None,
    activation_bits: ActivationBits,
) -> Tensor:
    """x W^T + b as the kernels compute it from the packed W, bit for bit; no gradients.

    W is packed on the way. Measured on one thread, a 4096 x 13696 weight of 4 bits and one token:
    7 ms where dequantizing takes 32, and the product alone 1.
    """
    out_features, columns = levels.shape[0], levels.shape[1] * 8 // bits
    elements = _PACKED_FEW if x.numel() <= _FEW_TOKENS * columns else _PACKED_MANY
    step = max(1, elements // columns // _PACKED_ROWS) * _PACKED_ROWS
    out = x.new_empty((*x.shape[:-1], out_features))
    for begin in range(0, out_features, step):
        rows = slice(begin, begin + step)
        zero_R, bias_R = (None if part is None else part[rows] for part in (zero, bias))
        group = columns // scale.shape[1] if scale.dim() == 2 else None
        packed = pack_weight(levels[rows], scale[rows], zero_R, bits=bits, group=group)
        out[..., rows] = linear_weight_only(x, packed, bias_R, activation_bits=activation_bits)
    return out


class _ProductByBlocks(torch.autograd.Function):
    """The gradient for x dequantizes again rather than keep W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, levels: Tensor, scale: Tensor, zero: Tensor | None, bits: int
    ) -> Tensor:
        ctx.save_for_backward(levels, scale, zero)
        ctx.bits = bits
        x_MI = x.reshape(-1, x.shape[-1])
        if bits == 4:
            x_MI = torch.cat((x_MI[:, 0::2], x_MI[:, 1::2]), dim=1)
        out_MO = x.new_empty((x_MI.shape[0], levels.shape[0]))
        for rows, w_OI in _weight_blocks(levels, scale, zero, bits, x_MI):
            if x_MI.shape[0] == 1:
                torch.mv(w_OI, x_MI[0], out=out_MO[0, rows])
            else:
                torch.mm(x_MI, w_OI.t(), out=out_MO[:, rows])
        return out_MO.view(*x.shape[:-1], levels.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        levels, scale, zero = ctx.saved_tensors
        grad_out = grads[0]
        grad_MO = grad_out.reshape(-1, levels.shape[0])
        columns = levels.shape[1] * 8 // ctx.bits
        # Blocks are summed in fp32: in half precision each addition would round.
        total_MI = torch.zeros(
            (grad_MO.shape[0], columns),
            dtype=torch.promote_types(grad_MO.dtype, torch.float32),
            device=grad_MO.device,
        )
        for rows, w_OI in _weight_blocks(levels, scale, zero, ctx.bits, grad_MO):
            total_MI += grad_MO[:, rows] @ w_OI
        if ctx.bits == 4:
            even_MI, odd_MI = total_MI.chunk(2, dim=1)
            total_MI = torch.stack((even_MI, odd_MI), dim=-1).flatten(1)
        grad_x = total_MI.to(grad_out.dtype).view(*grad_out.shape[:-1], columns)
        return grad_x, None, None, None, None


def _weight_blocks(
    levels: Tensor, scale: Tensor, zero: Tensor | None, bits: int, like_M: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Dequantizes blocks of rows, one after the other, into the same memory.

    Args:
        like_M: its dtype is that of the blocks, its number of rows decides their size.

    Yields:
        Which rows, and the block, valid until the next one: [rows, I]. With 4 bits all even columns
        come first, then all odd ones.
    """
    out_features, columns = levels.shape[0], levels.shape[1] * 8 // bits
    elements = _BLOCK_FEW if like_M.shape[0] <= _FEW_TOKENS else _BLOCK_MANY
    if levels.device.type != "cpu":
        elements = _BLOCK_DEVICE
    blocks = list(row_chunks(out_features, columns, elements))
    shape = (blocks[0].stop, columns)
    exact = torch.empty(shape, dtype=torch.float32, device=levels.device)
    block = exact if like_M.dtype == torch.float32 else torch.empty_like(exact, dtype=like_M.dtype)
    for rows in blocks:
        count = rows.stop - rows.start
        part = None if zero is None else zero[rows]
        multiply_out(levels[rows], scale[rows], bits, exact[:count], part)
        if block is not exact:
            block[:count].copy_(exact[:count])
        yield rows, block[:count]
