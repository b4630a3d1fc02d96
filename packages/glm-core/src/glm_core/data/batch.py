"""Samples (numpy) and batches (torch) of the language models.

Letters: B batch, T tokens of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from glm_core.attention.spec import Causal, MaskSpec, Packed, PrefixLM

IGNORE = -100
"""Label of a column that gives no loss."""

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One row before padding; labels stand in the column that predicts them.

    Fields:
        input_ids: int64 (T,).
        labels: int64 (T,), IGNORE where there is no loss.
        position_ids: int64 (2, T): row 0 position, row 1 block position (0 in the context).
        segments: (length, prefix length) of each sample packed into the row; lengths sum to T.
    """

    input_ids: Ints
    labels: Ints
    position_ids: Ints
    segments: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of equal length, ready for the model.

    Fields:
        input_ids: int64 [B, T].
        labels: int64 [B, T], IGNORE where there is no loss.
        position_ids: int64 [B, 2, T].
        mask: which columns see which.
        lengths: tokens of each row that are not padding.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    mask: MaskSpec
    lengths: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return sum(self.lengths)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; does not wait when it is in page-locked memory."""
        pinned = self.input_ids.is_pinned()
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=pinned),
            labels=self.labels.to(device, non_blocking=pinned),
            position_ids=self.position_ids.to(device, non_blocking=pinned),
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return replace(
            self,
            input_ids=self.input_ids.pin_memory(),
            labels=self.labels.pin_memory(),
            position_ids=self.position_ids.pin_memory(),
        )


def collate(samples: Sequence[Sample], seq_length: int, pad_id: int) -> Batch:
    """Stacks samples into rows of `seq_length` tokens, padding on the right.

    The mask is Causal when no sample has a context, PrefixLM when every row holds one sample,
    and Packed otherwise.

    Raises:
        ValueError: if there is no sample, or one is longer than `seq_length`.
    """
    if not samples:
        raise ValueError("cannot build a batch from no samples: batch_size must be at least 1")
    longest = max(len(sample) for sample in samples)
    if longest > seq_length:
        raise ValueError(
            f"a sample of {longest} tokens does not fit seq_length={seq_length}: build samples "
            "with the same seq_length"
        )
    input_ids = np.full((len(samples), seq_length), pad_id, dtype=np.int64)
    labels = np.full((len(samples), seq_length), IGNORE, dtype=np.int64)
    position_ids = np.zeros((len(samples), 2, seq_length), dtype=np.int64)
    for row, sample in enumerate(samples):
        size = len(sample)
        input_ids[row, :size] = sample.input_ids
        labels[row, :size] = sample.labels
        position_ids[row, :, :size] = sample.position_ids
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(position_ids),
        mask=_mask_of(samples),
        lengths=tuple(len(sample) for sample in samples),
    )


def _mask_of(samples: Sequence[Sample]) -> MaskSpec:
    if any(len(sample.segments) > 1 for sample in samples):
        return Packed(tuple(sample.segments for sample in samples))
    prefix_len = tuple(sample.segments[0][1] for sample in samples)
    return PrefixLM(prefix_len) if any(prefix_len) else Causal()
