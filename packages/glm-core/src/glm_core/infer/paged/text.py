"""A text whose keys and values lie in pages."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from glm_core.infer.paged.index import Column, Node
from glm_core.infer.paged.store import PAGE_SIZE
from glm_kernels.cpu.decode_pages import PageTable

FRONT: Column = (-1, 0, 0)
"""Stands for a column of a tuned prefix, which has no token."""


class PagedText:
    """A text being decoded; only its Runner changes it.

    Args:
        context: columns that see each other, its first ones; none is causal.
        adapter: the name of what its columns were computed with, or "".
        num_front: columns of a tuned prefix, stored before those of the text.
        epoch: state of the weights that it is computed with.
    """

    __slots__ = (
        "adapter",
        "_table",
        "columns",
        "context",
        "epoch",
        "fork_promises",
        "is_open",
        "kind",
        "nodes",
        "num_front",
        "pages",
        "promised",
    )

    def __init__(self, context: Sequence[Column], adapter: str, num_front: int, epoch: int) -> None:
        self.context, self.adapter = context, adapter
        self.kind: Hashable = (adapter, tuple(context))
        """Texts of one kind with the same columns have the same keys and values."""
        self.num_front, self.epoch = num_front, epoch
        self.columns: list[Column] = []
        """Stored ones, those of a tuned prefix first."""
        self.pages: list[int] = []
        """Where they are; perhaps more than are needed yet."""
        self.nodes: list[Node] = []
        """Of the first pages, as many as the tree of beginnings has."""
        self.promised = 0
        """Pages set aside for it."""
        self.fork_promises: list[int] = []
        """Pages set aside for each of its forks."""
        self.is_open = True
        self._table: PageTable | None = None

    def table(self, num_columns: int) -> PageTable:
        """Returns where its columns are in a cache of so many.

        Whoever changes `pages` calls `pages_changed`.
        """
        if self._table is None:
            begins = [page * PAGE_SIZE for page in self.pages]
            self._table = PageTable(begins, len(begins) * PAGE_SIZE, num_columns)
        return self._table

    def pages_changed(self) -> None:
        """Lets `table` look at the pages again."""
        self._table = None

    @property
    def prefix_len(self) -> int:
        """Columns of its context that see each other; 0 is causal."""
        return len(self.context)

    @property
    def num_context(self) -> int:
        """Stored columns that all columns see: a tuned prefix and the context; 0 is causal."""
        return self.num_front + len(self.context) if self.context else 0

    @property
    def length(self) -> int:
        """Columns of text that the model has read."""
        return max(len(self.columns) - self.num_front, 0)

    def stored_after(self, count: int) -> int:
        """Columns stored when `count` more of text are."""
        return max(len(self.columns), self.num_front) + count


def front_and(num_front: int, columns: Sequence[Column]) -> list[Column]:
    """Returns columns of text behind those of a tuned prefix."""
    return [FRONT] * num_front + list(columns)
