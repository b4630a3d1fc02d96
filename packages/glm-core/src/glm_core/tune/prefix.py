"""P-tuning v2: learned keys and values in front of every layer's own.

Letters: B batch, P prefix columns, T columns of text, K key/value heads, H head size, L blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from glm_core.model.config import TransformerConfig

if TYPE_CHECKING:
    from glm_core.model.transformer import KVCacheProtocol

DROPOUT = 0.1

LayerPrefix = tuple[Tensor, Tensor]
"""Keys and values of one block, [P, K, H] each."""


class PrefixEncoder(nn.Module):
    """Gives every block `prefix_len` keys and values that all columns see.

    Prefix keys are not rotated, and the positions of the text do not change. Set as `model.prefix`:
    the model then applies it wherever its first columns are computed.

    Args:
        config: of the model.
        prefix_len: number of prefix columns.
        projection: whether a Linear-Tanh-Linear makes keys and values from a smaller table.
        projection_hidden_size: its width in the middle; 0 means the model's hidden_size.
        projection_input_size: columns of that table; 0 means the model's hidden_size, as in
            ChatGLM-6B. ChatGLM2 and ChatGLM3 have as many as there are keys and values,
            `prefix_width(config)`.

    Source: arXiv 2110.07602, section 3; ChatGLM-6B and ChatGLM2-6B, modeling_chatglm.py.
    """

    def __init__(
        self,
        config: TransformerConfig,
        prefix_len: int,
        projection: bool = False,
        projection_hidden_size: int = 0,
        projection_input_size: int = 0,
    ) -> None:
        super().__init__()
        if prefix_len <= 0:
            raise ValueError(f"prefix_len is {prefix_len}: it must be positive")
        self.config = config
        self.prefix_len = prefix_len
        width = prefix_width(config)
        middle = projection_hidden_size or config.hidden_size
        table = projection_input_size or config.hidden_size
        self.embedding = nn.Embedding(prefix_len, table if projection else width)
        self.trans = (
            nn.Sequential(nn.Linear(table, middle), nn.Tanh(), nn.Linear(middle, width))
            if projection
            else None
        )
        self.dropout = nn.Dropout(DROPOUT)

    def in_front_of(self, kv_cache: KVCacheProtocol | None, dtype: torch.dtype) -> PrefixedColumns:
        """Returns what takes the cache's place while the first columns are computed."""
        return PrefixedColumns(self(dtype), kv_cache)

    def forward(self, dtype: torch.dtype) -> list[LayerPrefix]:
        """Returns keys and values of every block in `dtype`, the top-query layer's last."""
        rows_PW = self.embedding.weight
        if self.trans is not None:
            rows_PW = self.trans(rows_PW)
        x_LPKH = rearrange(
            rows_PW.to(dtype),
            "p (l k h) -> l p k h",
            k=self.config.num_kv_heads,
            h=self.config.head_dim,
        )
        x_LPKH = self.dropout(x_LPKH)
        return [(x_LPKH[i], x_LPKH[i + 1]) for i in range(0, len(x_LPKH), 2)]


def prefix_width(config: TransformerConfig) -> int:
    """Returns how many numbers one prefix column has: a key and a value for each block and head."""
    return config.num_blocks * 2 * config.num_kv_heads * config.head_dim


class PrefixedColumns:
    """Puts a prefix in front of the first columns that a model computes.

    It stands where a KV cache stands. With a cache behind it the prefix becomes the cache's first
    columns, so that later steps find it there.
    """

    def __init__(self, prefix: list[LayerPrefix], kv_cache: KVCacheProtocol | None) -> None:
        self.length = 0
        self._prefix = prefix
        self._kv_cache = kv_cache

    def append(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values of a layer with the prefix before them, [B, P + T, K, H]."""
        batch = k_BTKH.shape[0]
        k_BSKH, v_BSKH = (
            torch.cat([prefix_PKH.expand(batch, -1, -1, -1), new], dim=1)
            for prefix_PKH, new in zip(self._prefix[layer], (k_BTKH, v_BTKH), strict=True)
        )
        if self._kv_cache is None:
            return k_BSKH, v_BSKH
        return self._kv_cache.append(layer, k_BSKH, v_BSKH)

    def advance(self, count: int) -> None:
        """Counts the prefix and `count` columns of text."""
        if self._kv_cache is not None:
            self._kv_cache.advance(self._prefix[0][0].shape[0] + count)
