"""One column of a batch as a function of tensors whose shapes never change.

Nothing in it depends on a number that the host would have to know: how many columns there are, and
which of them a row sees, are read from tensors. So a CUDA graph can record it, and torch.compile
traces it once.

Letters: B rows, C columns of room, K key/value heads, H head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_core.attention import Scaling
from glm_core.model.transformer import Transformer
from glm_kernels import VisibleKeys, attention


def column_inputs(
    tokens: Sequence[int],
    places: Sequence[tuple[int, int]],
    pads: Sequence[int],
    length: int,
    prefix_len: int,
    rows: int,
) -> Tensor:
    """Writes down what `static_step` reads, one line for each of its inputs.

    Args:
        tokens: of the new column.
        places: position and block position of each.
        pads: columns behind the prefix that a row does not see.
        length: columns stored, the prefix included: the place of the new one.
        prefix_len: first columns that all rows see.
        rows: B; those without a token are filler, which sees nothing but the prefix.

    Returns:
        int64 [6, B] on the CPU: token, position, block position, first column seen, the one behind
        the last, place of the new column.
    """
    filler = [0] * (rows - len(tokens))
    positions, block_positions = zip(*places, strict=True)
    lines = (
        [*tokens, *filler],
        [*positions, *filler],
        [*block_positions, *filler],
        [*(prefix_len + pad for pad in pads), *filler],
        [*(length + 1 for _ in pads), *filler],
        [length] * rows,
    )
    return torch.tensor(lines)


def static_step(
    model: Transformer, inputs_6B: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> Tensor:
    """Computes one column and stores its keys and values.

    Args:
        inputs_6B: of `column_inputs`, on the model's device.
        keys: [B, C, K, H] for each block; finite everywhere, also where nothing is stored.
        values: as keys.

    Returns:
        Logits after the column, [B, V].
    """
    sink = 0 if model.prefix is None else model.prefix.prefix_len
    start_B1, stop_B1 = inputs_6B[3:5, :, None].int()
    visible = VisibleKeys(start_B1, stop_B1, sink)

    def attend(
        q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, scaling: Scaling, dropout: float = 0.0
    ) -> Tensor:
        return attention(q_BTNH, k_BSKH, v_BSKH, visible, scaling.scale)

    stored = _StaticColumns(keys, values, inputs_6B[5, :1])
    places_B21 = inputs_6B[1:3].t()[..., None]
    hidden_B1D = model.stack(inputs_6B[0, :, None], places_B21, attend, stored)
    return model.logits(hidden_B1D[:, -1])


class _StaticColumns:
    """Stands where a KV cache stands, and gives all of its room to the attention each time."""

    length = 0

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], at_1: Tensor) -> None:
        self._keys, self._values, self._at_1 = keys, values, at_1

    def append(self, layer: int, k_B1KH: Tensor, v_B1KH: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the column of a block; returns all room of it, [B, C, K, H]."""
        self._keys[layer].index_copy_(1, self._at_1, k_B1KH)
        self._values[layer].index_copy_(1, self._at_1, v_B1KH)
        return self._keys[layer], self._values[layer]

    def advance(self, count: int) -> None:
        """The host counts."""
