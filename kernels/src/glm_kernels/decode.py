"""Decoding a transformer by one call per column: what such a model is made of.

The compiled step (glm_kernels.cpu.decode) runs all layers on the threads of PyTorch, without Python
or PyTorch in between. It computes in fp32; quantized products round their input to 15 bits, as
`linear_weight_only` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from glm_kernels.weight_only import PackedWeight


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeShape:
    """How a model computes; the words are those of glm_core's TransformerConfig."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_hidden_size: int
    norm: Literal["rms_norm", "layer_norm"]
    norm_eps: float
    activation: Literal["gelu_tanh", "gelu_erf", "gelu_quick", "silu"]
    gate: Literal["first", "second"] | None
    """Which half of the doubled projection passes through the activation; None: not doubled."""
    rope: Literal["halves", "interleaved", "2d"] | None
    residual: Literal["pre", "deepnorm", "sandwich"]
    residual_scale: float
    interleaved_heads: bool
    """Whether queries, key and value of a key/value head stand side by side in the projection."""


@dataclass(frozen=True, slots=True)
class NormWeights:
    """[D] each."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class LinearWeights:
    """A quantized matrix, or a plain one [out, in]."""

    weight: PackedWeight | Tensor
    bias: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.weight.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeight:
    """A quantized table as `pack_weight` takes it: its rows are looked up, it is not multiplied."""

    levels: Tensor
    scales: Tensor
    zeros: Tensor | None
    bits: int
    group: int | None


Table = PackedWeight | StoredWeight | Tensor
"""Rows [N, D] that are looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One block; the norms of outputs are there in a sandwich alone."""

    input_norm: NormWeights
    query_key_value: LinearWeights
    dense: LinearWeights
    attention_out_norm: NormWeights | None
    post_attention_norm: NormWeights
    up: LinearWeights
    down: LinearWeights
    mlp_out_norm: NormWeights | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeWeights:
    """A whole model."""

    words: Table
    """By token."""
    positions: tuple[Tensor, ...]
    """By position and block position, added to `words`: as many as are learned, at most two."""
    layers: tuple[LayerWeights, ...]
    final_norm: NormWeights
    head: LinearWeights
    queries: Tensor | None = None
    """By position: with these, neither normed nor rotated, the last layer asks, which then stands
    above the final norm (glm_core.model.top_query)."""

    def linears(self) -> Iterator[LinearWeights]:
        """Yield every matrix."""
        for layer in self.layers:
            yield from (layer.query_key_value, layer.dense, layer.up, layer.down)
        yield self.head
