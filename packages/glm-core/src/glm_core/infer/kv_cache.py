"""Keys and values of the columns a model has seen, so that it need not see them again.

Letters: B batch rows, T new columns, S all columns, K key/value heads, H head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_core.model.config import TransformerConfig


class KVCache:
    """A cache of fixed capacity, one pair of tensors [B, max_len, K, H] per layer.

    A row is a sequence being decoded. `length` columns are stored in every row; what a column means
    (padding, text) is known to whoever builds the mask, not to the cache.
    """

    def __init__(
        self,
        num_layers: int,
        batch: int,
        max_len: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch, max_len, num_kv_heads, head_dim)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.length = 0

    @classmethod
    def for_model(
        cls,
        config: TransformerConfig,
        batch: int,
        max_len: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        """Returns an empty cache with the model's number of blocks and heads.

        Args:
            max_len: columns it holds; those of `model.prefix`, where there is one, count too.
        """
        return cls(
            config.num_blocks, batch, max_len, config.num_kv_heads, config.head_dim, dtype, device
        )

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """Number of columns that fit."""
        return self.keys[0].shape[1]

    @torch.no_grad()
    def append(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new columns of one layer.

        Returns:
            All keys and values of the layer, [B, S, K, H] with S = length + T: views of the cache.

        Raises:
            ValueError: the columns do not fit.
        """
        end = self.length + k_BTKH.shape[1]
        if end > self.capacity:
            raise ValueError(
                f"the KV cache holds {self.capacity} columns but {end} are needed: "
                "build it with a larger max_len"
            )
        self.keys[layer][:, self.length : end] = k_BTKH
        self.values[layer][:, self.length : end] = v_BTKH
        return self.keys[layer][:, :end], self.values[layer][:, :end]

    def advance(self, count: int) -> None:
        """Counts `count` columns that every layer has stored."""
        self.length += count

    def crop(self, length: int) -> None:
        """Forgets all columns from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a KV cache of {self.length} columns to {length}")
        self.length = length

    @torch.no_grad()
    def reorder(self, index: Sequence[int]) -> None:
        """Makes row i a copy of the present row `index[i]`; the number of rows may change."""
        rows = torch.tensor(list(index), dtype=torch.int64, device=self.keys[0].device)
        same_size = len(rows) == self.batch
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                if same_size:
                    old[:, : self.length] = old[:, : self.length].index_select(0, rows)
                else:
                    tensors[layer] = self._resized(old, rows)

    def _resized(self, old: Tensor, rows: Tensor) -> Tensor:
        new = old.new_empty((len(rows), *old.shape[1:]))
        new[:, : self.length] = old[:, : self.length].index_select(0, rows)
        return new

    @torch.no_grad()
    def move_rows(
        self, sources: Sequence[int], targets: Sequence[int], counts: Sequence[int]
    ) -> None:
        """Moves `counts[b]` columns of row b from column `sources[b]` to column `targets[b]`.

        Keys carry their own position, so that moving them changes nothing but the mask they need.
        """
        for row, (source, target, count) in enumerate(zip(sources, targets, counts, strict=True)):
            if source == target:
                continue
            for tensor in (*self.keys, *self.values):
                moved = tensor[row, source : source + count].clone()
                tensor[row, target : target + count] = moved

    @torch.no_grad()
    def reserve(self, max_len: int) -> None:
        """Makes room for at least `max_len` columns, with some to spare when it has to grow."""
        if max_len <= self.capacity:
            return
        max_len = max(max_len, self.capacity * 3 // 2)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_empty((old.shape[0], max_len, *old.shape[2:]))
                new[:, : self.length] = old[:, : self.length]
                tensors[layer] = new

    @torch.no_grad()
    def move_to(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Copies the stored columns into other tensors, and stays in them.

        Args:
            keys: [B, max_len, K, H] for each layer, with room for `length` columns.
            values: as keys.
        """
        old, new = (*self.keys, *self.values), (*keys, *values)
        for source, target in zip(old, new, strict=True):
            target[:, : self.length] = source[:, : self.length]
        self.keys, self.values = list(keys), list(values)
