"""Pages as the model's own forward sees them: in the place of a KV cache.

Letters: B texts, T new columns, S all columns, K key/value heads, H head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_core.infer.paged.store import PAGE_SIZE, PageStore


class PagedColumns:
    """Stores new columns in pages and gives a block all columns of its texts, gathered.

    Texts of different lengths are brought to one by filler on the left: copies of the text's first
    column, which no mask lets anybody see.

    Args:
        pages: of each text; with room for the new columns.
        stored: columns that each text has.
        num_new: T, columns that each gets.
    """

    def __init__(
        self,
        store: PageStore,
        pages: Sequence[Sequence[int]],
        stored: Sequence[int],
        num_new: int,
    ) -> None:
        self.length = max(stored)
        self._store = store
        rows = [_places(table, count + num_new) for table, count in zip(pages, stored, strict=True)]
        self._new_BT = torch.stack([row[len(row) - num_new :] for row in rows]).to(store.device)
        longest = self.length + num_new
        padded = [torch.cat([row[:1].expand(longest - len(row)), row]) for row in rows]
        self._all_BS = torch.stack(padded).to(store.device)
        self._begin = _begin_of_run(self._all_BS)

    def append(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new columns of a block; returns all keys and values of it, [B, S, K, H], in the
        dtype of the new ones."""
        return (
            self._store_and_gather(self._store.keys[layer], k_BTKH),
            self._store_and_gather(self._store.values[layer], v_BTKH),
        )

    def advance(self, count: int) -> None:
        """The runner counts, when all has been computed."""

    def _store_and_gather(self, all_CKH: Tensor, new_BTKH: Tensor) -> Tensor:
        new_XKH = new_BTKH.flatten(0, 1).to(all_CKH.dtype)
        all_CKH.index_copy_(0, self._new_BT.flatten(), new_XKH)
        if self._begin is not None:
            run_1SKH = all_CKH.narrow(0, self._begin, self._all_BS.shape[1])[None]
            return run_1SKH.to(new_BTKH.dtype)
        gathered = all_CKH.index_select(0, self._all_BS.flatten()).to(new_BTKH.dtype)
        return gathered.view(*self._all_BS.shape, *all_CKH.shape[1:])


def _places(pages: Sequence[int], count: int) -> Tensor:
    """Returns where the first `count` columns of a text are in a store, int64."""
    begins = torch.tensor(pages)[: -(-count // PAGE_SIZE), None] * PAGE_SIZE
    return (begins + torch.arange(PAGE_SIZE)).flatten()[:count]


def _begin_of_run(places_BS: Tensor) -> int | None:
    """Returns where the columns of a single text begin, if they follow each other there."""
    first = int(places_BS[0, 0])
    run_S = torch.arange(first, first + places_BS.shape[1], device=places_BS.device)
    return first if len(places_BS) == 1 and torch.equal(places_BS[0], run_S) else None
