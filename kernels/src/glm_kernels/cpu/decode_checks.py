"""What a decode step refuses: it writes into the cache it is given, and reads by these numbers.

Letters: B rows, S columns of the cache, K key/value heads, H head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CACHE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def check_cache(
    keys_BSKH: Sequence[Tensor],
    values_BSKH: Sequence[Tensor],
    num_layers: int,
    size: tuple[int, ...],
) -> None:
    """Refuse keys and values that are not those of the model.

    Args:
        keys_BSKH: of each layer.
        values_BSKH: of each layer.
        num_layers: of the model.
        size: B, K and H.

    Raises:
        ValueError: names the tensor and the rule.
    """
    if not len(keys_BSKH) == len(values_BSKH) == num_layers:
        raise ValueError(
            f"the cache has keys of {len(keys_BSKH)} layers and values of {len(values_BSKH)}: the "
            f"model has {num_layers} layers"
        )
    dtype, capacity = keys_BSKH[0].dtype, keys_BSKH[0].shape[1]
    if dtype not in _CACHE_DTYPES:
        raise ValueError(f"the cache is {dtype}: it must be fp32, bf16 or fp16")
    shape = (size[0], capacity, *size[1:])
    for tensor in (*keys_BSKH, *values_BSKH):
        is_fit = tensor.shape == shape and tensor.dtype == dtype and tensor.device.type == "cpu"
        if not is_fit or not tensor.is_contiguous():
            raise ValueError(
                f"a layer's cache is {tensor.dtype} of shape {list(tensor.shape)} on "
                f"{tensor.device}: it must be contiguous, {dtype} of shape {list(shape)} on the CPU"
            )
