"""Linear layers and embeddings whose matrix is quantized."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from glm_core.quantize.layout import Layout
from glm_core.quantize.matrix import quantize_matrix
from glm_core.quantize.weight import QuantizedWeight
from glm_kernels import dequantize_packed

_LOOKUP_BLOCKS = 64
"""Blocks of a packed embedding that are dequantized at once, to take a row out of each."""


class QuantizedLinear(QuantizedWeight):
    """y = x W^T + b with W in 8 or 4 bits. Gradients reach x and the bias, W is not trained.

    Args:
        in_features: columns of the weight.
        out_features: rows of the weight.
        layout: of the weight.
        bias: whether there is one, in `dtype`.
        dtype: of the bias.

    Raises:
        ValueError: the columns cannot be laid out so.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        layout: Layout,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, in_features, layout, device)
        self.in_features, self.out_features = in_features, out_features
        zeros = torch.zeros(out_features, dtype=dtype, device=device) if bias else None
        self.bias = None if zeros is None else nn.Parameter(zeros)

    @classmethod
    def from_linear(cls, linear: nn.Linear, layout: Layout) -> QuantizedLinear:
        """Quantizes a linear layer, whose bias is taken over; on meta, the shapes alone."""
        weight = linear.weight
        new = cls(linear.in_features, linear.out_features, layout, bias=False, device="meta")
        new.bias = linear.bias
        if not weight.is_meta:
            new.set_matrix(quantize_matrix(weight.detach(), layout))
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., out] for x [..., in]."""
        return self.multiply(x, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, {self.layout}, "
            f"bias={self.bias is not None}"
        )


class QuantizedEmbedding(QuantizedWeight):
    """Rows of a quantized table; where the head is the same matrix, `multiply` is the head.

    Args:
        num_embeddings: rows.
        embedding_dim: columns.
        layout: of the table.
        dtype: of what `forward` returns.
        is_head: whether it is multiplied as well. Only then is it packed.
    """

    like: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        layout: Layout,
        dtype: torch.dtype,
        is_head: bool,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, layout, device)
        self.is_head = is_head
        # an empty buffer follows the model's dtype, as the weight of nn.Embedding would
        self.register_buffer("like", torch.empty(0, dtype=dtype, device=device), persistent=False)

    @classmethod
    def from_embedding(
        cls, embedding: nn.Embedding, layout: Layout, is_head: bool
    ) -> QuantizedEmbedding:
        """Quantizes an embedding; on meta, the shapes alone."""
        weight = embedding.weight
        rows, columns = weight.shape
        new = cls(rows, columns, layout, weight.dtype, is_head, weight.device)
        if not weight.is_meta:
            new.set_matrix(quantize_matrix(weight.detach(), layout))
        return new

    def forward(self, ids: Tensor) -> Tensor:
        """Returns [..., D] for int64 ids [...]."""
        flat = ids.reshape(-1)
        if flat.numel() == 0:
            rows = self.like.new_empty((0, self._size[1]))
        elif self.packed is not None:
            rows = torch.cat(
                [self._packed_rows(part) for part in torch.split(flat, _LOOKUP_BLOCKS)]
            )
        else:
            matrix = self.matrix()
            zero = None if matrix.zero is None else matrix.zero[flat]
            chosen = replace(
                matrix, levels=matrix.levels[flat], scale=matrix.scale[flat], zero=zero
            )
            rows = chosen.dequantize(self.like.dtype)
        return rows.view(*ids.shape, self._size[1])

    def pack(self) -> None:
        """As `QuantizedWeight.pack`; rows alone are faster looked up as they are stored."""
        if self.is_head:
            super().pack()

    def _packed_rows(self, ids_M: Tensor) -> Tensor:
        """Takes the blocks of 16 rows that the ids lie in, and the rows out of these."""
        assert self.packed is not None
        packed, blocks = self.packed, ids_M // 16
        chosen = replace(
            packed,
            levels=packed.levels[blocks],
            scales=packed.scales[blocks],
            zeros=None if packed.zeros is None else packed.zeros[blocks],
            out_features=16 * len(blocks),
        )
        rows = torch.arange(len(blocks), device=ids_M.device) * 16 + ids_M % 16
        return dequantize_packed(chosen, torch.float32)[rows].to(self.like.dtype)

    def extra_repr(self) -> str:
        return f"{self._size[0]}, {self._size[1]}, {self.layout}"
