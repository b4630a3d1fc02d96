"""Tables that say how a released format names, stacks and splits the parameters of a model.

One table per format (see formats/), read in both directions: from their names to ours when a
checkpoint is opened, from ours to theirs when one is written. A table is data; what reads it is in
this file, released.py and convert.py.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import torch
from torch import Tensor

from glm_core.model.config import TransformerConfig

T = TypeVar("T")
Parts = Callable[[TransformerConfig], list[int]]
"""Rows of each part of a fused matrix, from top to bottom."""


class Split(StrEnum):
    """How the tensor-parallel ranks share a tensor."""

    whole = "whole"
    """Every rank has all of it."""
    rows = "rows"
    """Each rank has its share of the rows, of each part separately."""
    columns = "columns"
    """Each rank has its share of the columns."""


@dataclass(frozen=True)
class Entry:
    """One parameter of ours and what it is in the format.

    `{layer}` stands for the number of a layer.
    """

    ours: str
    theirs: str | tuple[str, ...]
    """One name; or several, where the format keeps the parts of a fused matrix apart."""
    split: Split = Split.whole
    parts: Parts | None = None
    """The parts of a fused matrix; None for a matrix in one piece."""
    held: tuple[int, ...] = ()
    """How many parts each of several names holds; empty for one each."""
    transposed: bool = False
    """Whether their matrix is [in, out]. It then holds one part, and is never quantized."""

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, from top to bottom."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

    def part_rows(self, config: TransformerConfig, rows: int) -> list[int]:
        """Rows of each part of the tensor, which has `rows`."""
        return [rows] if self.parts is None else self.parts(config)

    def by_name(self, parts: Sequence[T]) -> list[list[T]]:
        """What is given for each part, gathered for each of their names."""
        held = self.held or ((1,) * len(parts) if len(self.names) > 1 else (len(parts),))
        ends = list(itertools.accumulate(held))
        assert len(held) == len(self.names) and ends[-1] == len(parts)
        return [list(parts[end - count : end]) for end, count in zip(ends, held, strict=True)]


@dataclass(frozen=True)
class Copy:
    """A tensor of theirs that repeats one of ours: a tied head that is stored all the same."""

    theirs: str
    ours: str
    split: Split = Split.whole


@dataclass(frozen=True)
class Computed:
    """A tensor of theirs that the config alone gives: inverse frequencies of RoPE.

    Written as the original writes it, never read.
    """

    theirs: str
    value: Callable[[TransformerConfig, torch.dtype], Tensor]
    """From the config and the dtype of the embedding."""


@dataclass(frozen=True)
class Ignored:
    """Tensors of theirs that hold nothing to keep: buffers that old versions stored."""

    pattern: str


Row = Entry | Copy | Computed | Ignored
Table = list[Row]


def expand(rows: Iterable[Row], num_layers: int, prefix: str = "") -> Table:
    """The table of a model: every `{layer}` row once for each layer, their names complete."""
    table: Table = []
    for row in rows:
        if isinstance(row, Ignored):
            table.append(Ignored(re.escape(prefix) + row.pattern))
            continue
        names = (row.theirs,) if isinstance(row.theirs, str) else row.theirs
        has_layers = any("{layer}" in name for name in names)
        for layer in range(num_layers if has_layers else 1):
            full = tuple(prefix + name.replace("{layer}", str(layer)) for name in names)
            changes: dict[str, Any] = {"theirs": full if isinstance(row.theirs, tuple) else full[0]}
            if isinstance(row, Entry):
                changes["ours"] = row.ours.replace("{layer}", str(layer))
            table.append(replace(row, **changes))
    return table


def entries(table: Table) -> dict[str, Entry]:
    """The parameters in a table, by our names."""
    return {row.ours: row for row in table if isinstance(row, Entry)}


def ignores(table: Table, name: str) -> bool:
    """Whether a tensor of theirs may stand in a file without being read."""
    for row in table:
        if isinstance(row, Ignored) and re.fullmatch(row.pattern, name):
            return True
        if isinstance(row, Copy | Computed) and row.theirs == name:
            return True
    return False


def qkv_parts(config: TransformerConfig) -> list[int]:
    """Rows of queries, keys and values in a fused projection that lists them one after another."""
    keys = config.num_kv_heads * config.head_dim
    return [config.num_heads * config.head_dim, keys, keys]


def gate_parts(config: TransformerConfig) -> list[int]:
    """Rows of both halves of a gated feed-forward projection."""
    return [config.ffn_hidden_size] * 2


def cut_rows(tensor: Tensor, sizes: list[int], ranks: int) -> list[list[Tensor]]:
    """Cuts rows into parts, and each part into equal shares.

    Args:
        tensor: [rows, ...] with as many rows as `sizes` add up to.
        sizes: rows of each part.
        ranks: number of shares.

    Returns:
        For every rank its share of each part: views.
    """
    parts = [part.chunk(ranks, dim=0) for part in torch.split(tensor, sizes, dim=0)]
    return [[shares[rank] for shares in parts] for rank in range(ranks)]


def shape_on_rank(
    entry: Entry, config: TransformerConfig, shape: tuple[int, ...], ranks: int
) -> dict[str, tuple[int, ...]]:
    """Shapes that one of `ranks` ranks has of a parameter, by their names.

    Args:
        shape: of our parameter.

    Raises:
        ValueError: the parameter cannot be shared evenly.
    """
    if entry.split == Split.columns:
        _check_even(entry, shape[1], ranks, "columns")
        return {entry.names[0]: _turned(entry, (shape[0], shape[1] // ranks))}
    sizes = entry.part_rows(config, shape[0])
    if entry.split == Split.rows:
        for size in sizes:
            _check_even(entry, size, ranks, "rows")
        sizes = [size // ranks for size in sizes]
    rows = map(sum, entry.by_name(sizes))
    return {
        name: _turned(entry, (size, *shape[1:]))
        for name, size in zip(entry.names, rows, strict=True)
    }


def slots(
    entry: Entry, config: TransformerConfig, tensor: Tensor, ranks: int
) -> Iterator[tuple[int, str, list[Tensor]]]:
    """What of a parameter of ours each tensor of theirs holds, for reading and for writing.

    Yields:
        Rank, their name, and the views of `tensor` that their tensor lists from top to bottom.
    """
    if entry.split == Split.columns and ranks > 1:
        for rank, share in enumerate(tensor.chunk(ranks, dim=1)):
            yield rank, entry.names[0], [share.t() if entry.transposed else share]
        return
    sizes = entry.part_rows(config, tensor.shape[0])
    shares = cut_rows(tensor, sizes, ranks if entry.split == Split.rows else 1)
    for rank in range(ranks):
        parts = shares[rank if entry.split == Split.rows else 0]
        for name, views in zip(entry.names, entry.by_name(parts), strict=True):
            if entry.transposed:
                assert len(views) == 1, f"{name} holds one part, for it is transposed"
                views = [views[0].t()]
            yield rank, name, views


def _turned(entry: Entry, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if entry.transposed else shape


def _check_even(entry: Entry, size: int, ranks: int, what: str) -> None:
    if size % ranks:
        raise ValueError(
            f"{entry.ours} cannot be shared by {ranks} tensor-parallel ranks: its {size} {what} "
            f"are no multiple of {ranks}; choose a number that divides them"
        )


def same_names(table: Table, expected: Mapping[str, object]) -> str | None:
    """What keeps a table from holding a model with the parameters `expected`; None if nothing."""
    known = entries(table)
    absent = sorted(set(expected) - set(known))
    if absent:
        return f"it has no place for {absent[0]}"
    extra = sorted(set(known) - set(expected))
    return f"it needs {extra[0]}, which the model does not have" if extra else None
