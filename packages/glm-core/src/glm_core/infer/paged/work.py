"""What a step is asked for, and what it gives.

Letters: B works, T new columns of a text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from glm_core.infer.batch import Place
from glm_core.infer.paged.text import PagedText


@dataclass(frozen=True, slots=True)
class Work:
    """New columns of a text."""

    text: PagedText
    ids: Sequence[int]
    places: Sequence[Place]
    """Position and block position of each."""
    wants: Literal["none", "last", "all"] = "last"
    """Of which columns the logits are asked for."""

    @property
    def count(self) -> int:
        """Columns."""
        return len(self.ids)

    @property
    def num_unasked(self) -> int:
        """Columns whose logits nobody wants: the first ones."""
        if self.wants == "last":
            return len(self.ids) - 1
        return len(self.ids) if self.wants == "none" else 0


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """Returns the logits of some works as one tensor, [B, V]; without a copy where they lie so.

    Args:
        rows: [V] each, contiguous.
    """
    first, width = rows[0], rows[0].numel()
    start, step = first.data_ptr(), width * first.element_size()
    storage = first.untyped_storage().data_ptr()
    for number, row in enumerate(rows):
        if row.data_ptr() != start + number * step or row.untyped_storage().data_ptr() != storage:
            return torch.stack(list(rows))
    return first.as_strided((len(rows), width), (width, 1))
