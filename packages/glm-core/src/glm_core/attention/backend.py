"""What every attention backend offers.

Letters: B batch, T query columns, S key columns, N query heads, K key/value heads, H head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from glm_core.attention.spec import MaskSpec


@dataclass(frozen=True)
class Scaling:
    """How scores become attention weights: softmax(coefficient * (q * scale / coefficient) @ k).

    Mathematically the coefficient cancels; in half precision it keeps the scores small until they
    are in fp32. GLM-130B uses the layer's number (arXiv 2210.02414, section 2.1); GLM's
    `attention_scale` is PB-relax (arXiv 2105.13290, section 2.4).
    """

    scale: float
    """Factor of q @ k, 1 / sqrt(head size)."""

    coefficient: float = 1.0
    """Divided out of the query and multiplied back inside the fp32 softmax."""


class Attend(Protocol):
    """Attention with its mask in it: what each layer calls."""

    def __call__(
        self,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float = 0.0,
    ) -> Tensor:
        """Returns the weighted values, [B, T, N, H]."""


@dataclass(frozen=True)
class MaskRequest:
    """The shape for which a mask is wanted."""

    spec: MaskSpec
    batch: int
    q_len: int
    kv_len: int
    q_offset: int
    """Absolute column of the first query: the number of columns already in the cache."""

    device: torch.device
    dtype: torch.dtype
    """Dtype of the queries."""

    group: int = 1
    """Query heads that share a key/value head."""

    head_dim: int | None = None
    """Size of a head, where it is known."""


class AttentionBackend(Protocol):
    """One way to compute attention. Stateless."""

    name: str

    def why_not(self, request: MaskRequest, dropout: float) -> str | None:
        """Returns None when the backend can serve the request, otherwise the reason."""

    def prepare(self, request: MaskRequest) -> Any:
        """Builds what `attend` needs from the mask, once per forward."""

    def attend(
        self,
        mask: Any,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float,
    ) -> Tensor:
        """Returns the weighted values, [B, T, N, H]."""
