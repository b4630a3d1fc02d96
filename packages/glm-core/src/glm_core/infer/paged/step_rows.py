"""Works as rows of the compiled step, one for each column; those whose logits are wanted first.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from glm_core.infer.paged.work import Work
from glm_kernels.cpu.decode_pages import RowPages


class StepRows:
    """What the compiled step reads of some works, and what its logits are to each of them.

    Args:
        num_columns: of the cache.
    """

    def __init__(self, works: Sequence[Work], num_columns: int) -> None:
        self._works = works
        rows = [(work, index) for work in works for index in range(work.num_unasked, work.count)]
        self.num_logits = len(rows)
        """Rows whose logits are wanted: the first ones."""
        rows += [(work, index) for work in works for index in range(work.num_unasked)]
        self.tokens = [work.ids[index] for work, index in rows]
        self.places = [work.places[index] for work, index in rows]
        lengths = [len(work.text.columns) + index for work, index in rows]
        contexts = [work.text.num_context for work, _ in rows]
        visible = [max(length + 1, seen) for length, seen in zip(lengths, contexts, strict=True)]
        tables = [work.text.table(num_columns) for work, _ in rows]
        self.pages = RowPages(tables, lengths, visible)

    def of_works(self, logits_BV: Tensor) -> list[Tensor | None]:
        """Returns the logits of each work, as it wants them."""
        rows = logits_BV.unbind()
        found: list[Tensor | None] = []
        at = 0
        for work in self._works:
            begin, at = at, at + work.count - work.num_unasked
            if work.wants == "all":
                found.append(logits_BV[begin:at])
            else:
                found.append(rows[begin] if work.wants == "last" else None)
        return found
