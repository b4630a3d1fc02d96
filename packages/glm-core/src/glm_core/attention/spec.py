"""Attention masks as values.

A mask is a small hashable object, built once per batch. Each kind defines one predicate,
`visible(row b, query column q, key column k)`, in absolute columns of the sequence. Every backend
derives what it needs from that predicate, so that there is one definition of each mask and nobody
has to look into a tensor to find out what it means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MaskMod = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`f(b, q, k) -> bool`, broadcasting over integer tensors; True means that q sees k."""


class MaskSpec(ABC):
    """Base of all mask kinds. Frozen dataclasses: compared and hashed by value."""

    @property
    def rows(self) -> int | None:
        """How many batch rows the mask describes; None when every row is alike."""
        return None

    @abstractmethod
    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        """Returns the predicate for columns 0..length-1, its tables placed on `device`."""


@dataclass(frozen=True)
class Causal(MaskSpec):
    """Each column sees itself and everything before it."""

    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        return lambda b, q, k: k <= q


@dataclass(frozen=True)
class Full(MaskSpec):
    """Every column sees every column."""

    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        return lambda b, q, k: (k >= 0) & (q >= 0)


@dataclass(frozen=True)
class PrefixLM(MaskSpec):
    """Columns before `prefix_len[b]` are visible to all, the rest is causal.

    Source: arXiv 2103.10360, section 2.1 (Part A and Part B).
    """

    prefix_len: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.prefix_len)

    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        prefix_B = torch.tensor(self.prefix_len, device=device)
        return lambda b, q, k: (k <= q) | (k < prefix_B[b])


@dataclass(frozen=True)
class Packed(MaskSpec):
    """Several samples in one row, each with its own prefix; none sees another.

    `segments[b]` lists (length, prefix length) from left to right. Columns after the last segment
    are padding: they see only padding.
    """

    segments: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def rows(self) -> int:
        return len(self.segments)

    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        segment_BS = torch.full((self.rows, length), -1, dtype=torch.int64)
        prefix_end_BS = torch.zeros((self.rows, length), dtype=torch.int64)
        for row, segments in enumerate(self.segments):
            start = 0
            for index, (size, prefix_len) in enumerate(segments):
                segment_BS[row, start : start + size] = index
                prefix_end_BS[row, start : start + size] = start + prefix_len
                start += size
        segment_BS, prefix_end_BS = segment_BS.to(device), prefix_end_BS.to(device)

        def visible(b: Tensor, q: Tensor, k: Tensor) -> Tensor:
            same_sample = segment_BS[b, q] == segment_BS[b, k]
            return same_sample & ((k <= q) | (k < prefix_end_BS[b, k]))

        return visible


@dataclass(frozen=True)
class LeftPadded(MaskSpec):
    """`inner` moved right by `pads[b]` padding columns.

    Nothing sees padding, except that each padding column sees itself, so that no softmax row is
    empty.
    """

    inner: MaskSpec
    pads: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.pads)

    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        inner = self.inner.mask_mod(length, device)
        pads_B = torch.tensor(self.pads, device=device)

        def visible(b: Tensor, q: Tensor, k: Tensor) -> Tensor:
            pad = pads_B[b]
            shifted = inner(b, (q - pad).clamp(min=0), (k - pad).clamp(min=0))
            return (shifted & (k >= pad) & (q >= pad)) | (q == k)

        return visible


@dataclass(frozen=True)
class RightPadded(MaskSpec):
    """`inner` with the columns from `lengths[b]` on hidden from all but themselves."""

    inner: MaskSpec
    lengths: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.lengths)

    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        inner = self.inner.mask_mod(length, device)
        lengths_B = torch.tensor(self.lengths, device=device)

        def visible(b: Tensor, q: Tensor, k: Tensor) -> Tensor:
            end = lengths_B[b]
            return (inner(b, q, k) & (k < end) & (q < end)) | (q == k)

        return visible


@dataclass(frozen=True)
class Prefixed(MaskSpec):
    """`inner` moved right by `count` columns that every column of every row sees.

    The keys and values of a tuned prefix stand there (P-tuning v2, arXiv 2110.07602): in front of
    padding too, so that it is the same prefix for each row.
    """

    inner: MaskSpec
    count: int

    @property
    def rows(self) -> int | None:
        return self.inner.rows

    def mask_mod(self, length: int, device: torch.device) -> MaskMod:
        inner = self.inner.mask_mod(max(length - self.count, 0), device)

        def visible(b: Tensor, q: Tensor, k: Tensor) -> Tensor:
            text_q, text_k = q - self.count, k - self.count
            shifted = inner(b, text_q.clamp(min=0), text_k.clamp(min=0))
            return (text_k < 0) | (shifted & (text_q >= 0))

        return visible


def materialize(
    spec: MaskSpec, batch: int, q_len: int, kv_len: int, q_offset: int, device: torch.device
) -> Tensor:
    """Writes a mask out as a boolean tensor.

    Args:
        batch: rows of the batch.
        q_len: number of query columns; they stand at q_offset .. q_offset + q_len - 1.
        kv_len: number of key columns, 0 .. kv_len - 1.

    Returns:
        bool [B or 1, 1, T, S], True where the query sees the key; 1 when all rows are alike.
    """
    check_rows(spec, batch)
    rows = 1 if spec.rows is None else batch
    b = torch.arange(rows, device=device)[:, None, None]
    q = torch.arange(q_offset, q_offset + q_len, device=device)[None, :, None]
    k = torch.arange(kv_len, device=device)[None, None, :]
    visible = spec.mask_mod(max(kv_len, q_offset + q_len), device)(b, q, k)
    return visible.expand(rows, q_len, kv_len)[:, None]


def check_rows(spec: MaskSpec, batch: int) -> None:
    """Raises ValueError when the mask, or one inside it, was built for another number of rows."""
    if spec.rows is not None and spec.rows != batch:
        raise ValueError(
            f"mask {type(spec).__name__} describes {spec.rows} rows but the batch has {batch}: "
            "build the mask from the same batch as the input ids"
        )
    if isinstance(spec, LeftPadded | RightPadded | Prefixed):
        check_rows(spec.inner, batch)
