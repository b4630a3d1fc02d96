"""Memory of a paged KV cache: keys and values of all blocks, a page of columns at a time.

Letters: L blocks, C columns of all pages, K key/value heads, H head size.
"""

from __future__ import annotations

import torch

from glm_core.model.config import TransformerConfig
from glm_kernels.memory import empty_on_huge_pages

PAGE_SIZE = 64
"""Columns of a page: as many as the compiled step's attention works on at once."""


class PageStore:
    """Keys and values of `num_pages` pages. Column c of page p is column p * PAGE_SIZE + c.

    On a CPU the system gives memory to a page when it is first written to: a store may be large
    and cost little.

    Args:
        config: of the model.
        num_pages: pages of every block.
        dtype: of keys and values.
        device: where they are, the model's.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_pages: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        count = config.num_blocks
        size = num_pages * PAGE_SIZE, config.num_kv_heads, config.head_dim
        shape = (2 * count, *size)
        if torch.device(device).type == "cpu":  # read in strides: small pages of memory cost
            self._both_LCKH = empty_on_huge_pages(shape, dtype)
        else:
            self._both_LCKH = torch.empty(shape, dtype=dtype, device=device)
        self.num_pages = num_pages
        self.device = self._both_LCKH.device
        self.keys = list(self._both_LCKH[:count])
        """[C, K, H] of each block."""
        self.values = list(self._both_LCKH[count:])

    @torch.no_grad()
    def copy(self, source: int, target: int, count: int) -> None:
        """Copies the first `count` columns of page `source` to page `target`."""
        begin, end = source * PAGE_SIZE, target * PAGE_SIZE
        self._both_LCKH[:, end : end + count] = self._both_LCKH[:, begin : begin + count]


def bytes_per_page(config: TransformerConfig, dtype: torch.dtype) -> int:
    """Returns the memory of a page: keys and values of PAGE_SIZE columns in all blocks."""
    numbers = 2 * config.num_blocks * PAGE_SIZE * config.num_kv_heads * config.head_dim
    return numbers * dtype.itemsize
