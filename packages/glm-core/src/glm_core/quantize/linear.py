"""A linear layer whose weight is held as quantized rows.

Letters: M tokens, I columns of the weight (inputs), O rows (outputs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glm_core.quantize.layout import packed_columns
from glm_core.quantize.rows import multiply_out, quantize_rows, row_chunks

_FEW_TOKENS = 32
_BLOCK_FEW, _BLOCK_MANY = 1 << 19, 1 << 21
"""Elements of the weight dequantized at once on the CPU, so that they are still in its cache when
they are multiplied: measured, a 4096 x 11008 weight of 8 bits and one token take 8 ms on two cores
(bf16: 14 ms) instead of 52 ms (bf16: 120 ms) when the whole of it is dequantized first."""
_BLOCK_DEVICE = 1 << 25


class RowQuantizedLinear(nn.Module):
    """y = x W^T + b with W in 8 or 4 bits; W is dequantized to the dtype of x block by block.

    The levels and scales are buffers, `weight` and `weight_scale`: they are not trained. Gradients
    reach x (and the bias).

    Args:
        in_features: columns of the weight; even with 4 bits.
        out_features: rows of the weight.
        bits: 8 or 4.
        bias: whether there is one, in `dtype`.
        dtype: of the bias.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bits: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        shape = (out_features, packed_columns(in_features, bits))
        self.register_buffer("weight", torch.zeros(shape, dtype=torch.int8, device=device))
        scale = torch.ones(out_features, dtype=torch.float16, device=device)
        self.register_buffer("weight_scale", scale)
        zeros = torch.zeros(out_features, dtype=dtype, device=device) if bias else None
        self.bias = None if zeros is None else nn.Parameter(zeros)

    @classmethod
    def from_linear(cls, linear: nn.Linear, bits: int) -> RowQuantizedLinear:
        """Quantizes a linear layer, whose bias is taken over; on meta, the shapes alone."""
        weight = linear.weight
        new = cls(linear.in_features, linear.out_features, bits, bias=False, device="meta")
        if weight.is_meta:
            new.bias = linear.bias
            return new
        new.weight, new.weight_scale = quantize_rows(weight.detach(), bits)
        new.bias = linear.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., O] for x [..., I]."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        out: Tensor = _RowQuantizedProduct.apply(x, self.weight, self.weight_scale, self.bits)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, "
            f"bias={self.bias is not None}"
        )

    def _apply(self, fn: Any, recurse: bool = True) -> RowQuantizedLinear:
        """Moves the module; a change of dtype, as in `model.bfloat16()`, leaves the scales fp16."""
        scale = self.weight_scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.weight_scale.dtype != scale.dtype:
            self.weight_scale = scale.to(self.weight_scale.device)
        return self


class _RowQuantizedProduct(torch.autograd.Function):
    """x W^T; the gradient for x dequantizes again rather than keep W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: Tensor, scale: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(levels, scale)
        ctx.bits = bits
        x_MI = x.reshape(-1, x.shape[-1])
        if bits == 4:
            x_MI = torch.cat((x_MI[:, 0::2], x_MI[:, 1::2]), dim=1)
        out_MO = x.new_empty((x_MI.shape[0], levels.shape[0]))
        for rows, w_OI in _weight_blocks(levels, scale, bits, x_MI):
            if x_MI.shape[0] == 1:
                torch.mv(w_OI, x_MI[0], out=out_MO[0, rows])
            else:
                torch.mm(x_MI, w_OI.t(), out=out_MO[:, rows])
        return out_MO.view(*x.shape[:-1], levels.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        levels, scale = ctx.saved_tensors
        grad_out = grads[0]
        grad_MO = grad_out.reshape(-1, levels.shape[0])
        columns = levels.shape[1] * 8 // ctx.bits
        # Blocks are summed in fp32: in half precision each addition would round.
        total_MI = torch.zeros(
            (grad_MO.shape[0], columns), dtype=torch.float32, device=grad_MO.device
        )
        for rows, w_OI in _weight_blocks(levels, scale, ctx.bits, grad_MO):
            total_MI += grad_MO[:, rows] @ w_OI
        if ctx.bits == 4:
            even_MI, odd_MI = total_MI.chunk(2, dim=1)
            total_MI = torch.stack((even_MI, odd_MI), dim=-1).flatten(1)
        grad_x = total_MI.to(grad_out.dtype).view(*grad_out.shape[:-1], columns)
        return grad_x, None, None, None


def _weight_blocks(
    levels: Tensor, scale: Tensor, bits: int, like_M: Tensor
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
        multiply_out(levels[rows], scale[rows], bits, exact[:count])
        if block is not exact:
            block[:count].copy_(exact[:count])
        yield rows, block[:count]
