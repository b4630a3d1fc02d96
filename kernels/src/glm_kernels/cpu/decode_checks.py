"""What a decode step refuses: it writes into the cache it is given, and reads by these numbers.

Letters: K key/value heads, H head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_kernels.cpu.decode_pages import RowPages
from glm_kernels.decode import StoredWeight, Table
from glm_kernels.weight_only import PackedWeight

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Their numbers in native/abi.h."""


def check_columns(
    rows: int, num_places: int, first: Sequence[int], front: int, length: int, capacity: int
) -> None:
    """Refuse rows that do not belong together, and a full cache.

    Args:
        rows: tokens of the column.
        num_places: positions given.
        first: the first column that each row sees.
        front: columns at the start that all see.
        length: columns in the cache.
        capacity: columns that fit into it.

    Raises:
        ValueError: names the numbers and the rule.
    """
    if rows == 0 or num_places != rows or len(first) != rows:
        raise ValueError(
            f"{rows} tokens, {num_places} places, {len(first)} first columns: each row has one of "
            "each, and there must be a row"
        )
    if min(first) < 0 or max(first) > length or not 0 <= front <= length < capacity:
        raise ValueError(
            f"first columns {list(first)} and {front} columns seen by all, in a cache of {length} "
            f"columns with room for {capacity}: they must lie in it, with room for one more column"
        )


def check_pages(
    rows: int, num_places: int, num_logits: int, pages: RowPages, num_columns: int
) -> None:
    """Refuse rows that do not belong together, and one that has no room for its column.

    Args:
        rows: tokens.
        num_places: positions given.
        num_logits: rows that are asked for logits.
        pages: of the rows.
        num_columns: of the cache.

    Raises:
        ValueError: names the numbers and the rule.
    """
    counts = (num_places, len(pages.tables), len(pages.lengths), len(pages.visible))
    if rows == 0 or counts != (rows,) * 4 or not 0 <= num_logits <= rows:
        raise ValueError(
            f"{rows} tokens, {num_places} places, {len(pages.tables)} tables of pages, "
            f"{len(pages.lengths)} lengths, {len(pages.visible)} numbers of columns seen, logits "
            f"of {num_logits}: each row has one of each, and there must be a row"
        )
    for table, length, visible in zip(pages.tables, pages.lengths, pages.visible, strict=True):
        if not 0 <= length < visible <= table.capacity or table.num_columns > num_columns:
            raise ValueError(
                f"a text of {length} columns that sees {visible}, with room for {table.capacity} "
                f"in a cache of {num_columns}, whose pages are those of one of "
                f"{table.num_columns}: they must lie in it, with room for one more column"
            )


def check_cache(
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    num_layers: int,
    shape: tuple[int, ...],
) -> None:
    """Refuse keys and values that are not those of the model.

    Args:
        keys: of each layer.
        values: of each layer.
        num_layers: of the model.
        shape: of each; its last two sizes are K and H.

    Raises:
        ValueError: names the tensor and the rule.
    """
    if not len(keys) == len(values) == num_layers:
        raise ValueError(
            f"the cache has keys of {len(keys)} layers and values of {len(values)}: the "
            f"model has {num_layers} layers"
        )
    dtype = keys[0].dtype
    if dtype not in DTYPES:
        raise ValueError(f"the cache is {dtype}: it must be fp32, bf16 or fp16")
    for tensor in (*keys, *values):
        is_fit = tensor.shape == shape and tensor.dtype == dtype and tensor.device.type == "cpu"
        if not is_fit or not tensor.is_contiguous():
            raise ValueError(
                f"a layer's cache is {tensor.dtype} of shape {list(tensor.shape)} on "
                f"{tensor.device}: it must be contiguous, {dtype} of shape {list(shape)} on the CPU"
            )


def size_of(weight: Table) -> tuple[int, int]:
    """Return rows and columns of a matrix."""
    if isinstance(weight, PackedWeight):
        return weight.out_features, weight.in_features
    if isinstance(weight, StoredWeight):
        return weight.levels.shape[0], weight.levels.shape[1] * 8 // weight.bits
    return weight.shape[0], weight.shape[1]


def unfit(weight: Table, multiplied: bool) -> str | None:
    """Return why a matrix or a table cannot be read, or None when it can."""
    if not isinstance(weight, Tensor):
        return None if weight.levels.device.type == "cpu" else "a weight is not on the CPU"
    if weight.device.type != "cpu" or weight.dtype not in DTYPES:
        return f"a weight is {weight.dtype} on {weight.device}, not fp32, bf16 or fp16 on the CPU"
    if not weight.is_contiguous() or (multiplied and weight.shape[1] % 16):
        return f"a weight of shape {list(weight.shape)} is not contiguous rows of 16 columns"
    return None
