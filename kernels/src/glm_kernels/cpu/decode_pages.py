"""Where the columns of a text lie in a cache: what the compiled decode step reads them by."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

PAGE_COLUMNS = 64
"""kPageColumns of native/decode_abi.h."""


class PageTable:
    """The columns of a cache where a text's pages begin; never changed.

    Args:
        begins: of each page of PAGE_COLUMNS columns, the first column.
        capacity: columns that the text may have.
        num_columns: of the cache; no page may reach beyond them.

    Raises:
        ValueError: a page does, or there are not as many as `capacity` needs.
    """

    __slots__ = ("_begins", "address", "capacity", "num_columns")

    def __init__(self, begins: Sequence[int], capacity: int, num_columns: int) -> None:
        ends = [begin + PAGE_COLUMNS for begin in begins[:-1]]
        ends += [begins[-1] + capacity - len(ends) * PAGE_COLUMNS] if begins else []
        is_whole = len(begins) == -(-capacity // PAGE_COLUMNS)
        if not is_whole or min(begins, default=0) < 0 or max(ends, default=0) > num_columns:
            raise ValueError(
                f"{len(begins)} pages for {capacity} columns, beginning at {list(begins)}: they "
                f"must be as many as are needed, and lie in a cache of {num_columns} columns"
            )
        self._begins = array("q", begins)
        self.address = self._begins.buffer_info()[0]
        self.capacity, self.num_columns = capacity, num_columns

    @classmethod
    def of_run(cls, begin: int, capacity: int, num_columns: int) -> PageTable:
        """Returns the table of columns that follow each other."""
        return cls(range(begin, begin + capacity, PAGE_COLUMNS), capacity, num_columns)


@dataclass(frozen=True, slots=True)
class RowPages:
    """Where the columns of each row of a step are."""

    tables: Sequence[PageTable]
    """Of the row's text."""
    lengths: Sequence[int]
    """Columns before the new one, which is stored behind them."""
    visible: Sequence[int]
    """So many columns are seen, the new one with them."""
    first: Sequence[int] = ()
    """The first column that is seen; none: 0 for all."""
    front: int = 0
    """So many columns at the start are seen by every row, whatever `first` is."""
