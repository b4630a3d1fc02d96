"""Puts several samples into one row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glm_core.data.batch import Ints, Sample
from glm_core.data.sentences import SentenceEnds


def pack(samples: Sequence[Sample]) -> Sample:
    """One row of samples side by side; each keeps its own positions and sees only itself."""
    if len(samples) == 1:
        return samples[0]
    return Sample(
        input_ids=np.concatenate([sample.input_ids for sample in samples]),
        labels=np.concatenate([sample.labels for sample in samples]),
        position_ids=np.concatenate([sample.position_ids for sample in samples], axis=1),
        segments=tuple(segment for sample in samples for segment in sample.segments),
    )


def split_documents(text_T: Ints, cls_id: int, eos_id: int) -> list[Ints]:
    """The documents of a text, each with [CLS] before it and its eos, where there is one.

    Args:
        text_T: [CLS] first.

    Returns:
        At least one text; documents without a token of their own are left out.
    """
    ends = np.flatnonzero(text_T == eos_id) + 1
    bounds = [1, *ends.tolist(), len(text_T)]
    parts = [text_T[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    real = [part for part in parts if len(part) > 1 or (len(part) and part[0] != eos_id)]
    return [np.concatenate(([cls_id], part)) for part in real] or [text_T]


def split_short(text_T: Ints, size: int, cls_id: int, sentence_ends: SentenceEnds) -> list[Ints]:
    """`text_T` cut into texts of `size` tokens (the last may be shorter), [CLS] first in each.

    A text begins at a sentence where one begins within the first eighth of its part.
    """
    tokens = text_T[1:]
    parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    return [np.concatenate(([cls_id], _from_sentence(part, sentence_ends))) for part in parts]


def _from_sentence(part: Ints, sentence_ends: SentenceEnds) -> Ints:
    ends = np.flatnonzero(sentence_ends.after(part[: max(1, len(part) // 8)]))
    return part[int(ends[0]) + 1 :] if len(ends) else part
