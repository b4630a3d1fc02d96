"""Blocks of rows that stay in the cache while several operations pass over them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

BLOCK_ELEMENTS = 2**17
"""Elements of a block for each thread: 512 KiB in fp32, so a few of them fit in a core's L2."""


def blocks(rows: int, row_elements: int) -> Iterator[slice]:
    """Yield slices that cover `rows` rows of `row_elements` elements each, block by block."""
    size = max(1, BLOCK_ELEMENTS * torch.get_num_threads() // max(1, row_elements))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
