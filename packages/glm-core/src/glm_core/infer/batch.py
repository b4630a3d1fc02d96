"""Sequences that are decoded together: one KV cache, rows padded on the left.

Letters: B rows, T new columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_core.attention import Causal, Full, LeftPadded, MaskSpec, PrefixLM
from glm_core.infer.column_decoder import ColumnDecoder, column_decoder
from glm_core.infer.kv_cache import KVCache
from glm_core.model.transformer import Transformer

Place = tuple[int, int]
"""Position and block position of a column."""


@dataclass(frozen=True)
class RowStart:
    """What a row begins with."""

    input_ids: list[int]
    places: list[Place]
    prefix_len: int
    """Columns visible to all; 0 is causal."""


class DecodingBatch:
    """Rows of text and what the model knows about them.

    Every row ends at the same column, so that the next tokens of all rows are one column. A row
    that has nothing to add is given filler, which `settle` removes.
    """

    def __init__(self, model: Transformer, starts: Sequence[RowStart], capacity: int) -> None:
        self.model = model
        self.device = model.device
        self.num_front = 0 if model.prefix is None else model.prefix.prefix_len
        """Columns of a tuned prefix: the cache holds them before all rows, padding included."""
        self.cache = KVCache.for_model(
            model.config, len(starts), self.num_front + capacity, model.dtype, model.device
        )
        self._fast: ColumnDecoder | None = None
        longest = max(len(start.input_ids) for start in starts)
        self.pads = [longest - len(start.input_ids) for start in starts]
        self.prefix_lens = [start.prefix_len for start in starts]
        self.columns = [len(start.input_ids) for start in starts]
        """Columns of each row that hold text."""
        ids = [[0] * pad + start.input_ids for pad, start in zip(self.pads, starts, strict=True)]
        places = [
            [(0, 0)] * pad + start.places for pad, start in zip(self.pads, starts, strict=True)
        ]
        self.logits_BV = self._forward(ids, places)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.pads)

    def step(self, inputs: Sequence[tuple[int, Place] | None]) -> Tensor:
        """Adds one column.

        Args:
            inputs: for each row its token and place, or None for filler.

        Returns:
            Logits after the new column, [B, V]; those of filled rows mean nothing.
        """
        for row, entry in enumerate(inputs):
            self.columns[row] += entry is not None
        tokens = [0 if entry is None else entry[0] for entry in inputs]
        places = [(0, 0) if entry is None else entry[1] for entry in inputs]
        if self._fast is None or len(inputs) > self._fast.most_rows:
            self.logits_BV = self._forward([[token] for token in tokens], [[p] for p in places])
        else:
            self.cache.reserve(self.cache.length + 1)
            self.logits_BV = self._fast.step(tokens, places, self.pads, self.cache)
        return self.logits_BV

    def extend(self, ids: list[int], places: list[Place]) -> Tensor:
        """Adds several columns to the only row; returns the logits after the last, [1, V]."""
        assert self.num_rows == 1 and self.pads == [0]
        self.columns[0] += len(ids)
        self.logits_BV = self._forward([ids], [places])
        return self.logits_BV

    @property
    def num_read(self) -> int:
        """Columns of text that the model has read, padding included."""
        return max(self.cache.length - self.num_front, 0)

    def rewind(self, count: int) -> None:
        """Forgets all but the first `count` columns of the only row."""
        assert self.num_rows == 1 and self.pads == [0]
        self.columns = [count]
        self.cache.crop(self.num_front + count)

    def keep(self, rows: Sequence[int]) -> None:
        """Makes row i a copy of the present row `rows[i]`; all others are dropped."""
        self.cache.reorder(rows)
        self.pads = [self.pads[row] for row in rows]
        self.prefix_lens = [self.prefix_lens[row] for row in rows]
        self.columns = [self.columns[row] for row in rows]
        self.logits_BV = self.logits_BV[list(rows)]

    def crop(self, row: int, count: int) -> None:
        """Forgets the last `count` columns of text of a row; `settle` must follow."""
        self.columns[row] -= count

    def settle(self) -> None:
        """Removes filler: brings every row's text back to the same last column."""
        length = max(self.columns)
        pads = [length - count for count in self.columns]
        self.cache.move_rows(
            [self.num_front + pad for pad in self.pads],
            [self.num_front + pad for pad in pads],
            self.columns,
        )
        self.cache.crop(self.num_front + length)
        self.pads = pads

    def _mask(self, num_new: int) -> MaskSpec:
        padded = any(self.pads)
        if num_new == 1 and not padded:
            return Full()  # one column at the end sees everything, whatever the prefix
        inner = PrefixLM(tuple(self.prefix_lens)) if any(self.prefix_lens) else Causal()
        return LeftPadded(inner, tuple(self.pads)) if padded else inner

    def _forward(self, ids: list[list[int]], places: list[list[Place]]) -> Tensor:
        # Outside inference mode: tensors made inside could not be written to outside it.
        stored = max(self.cache.length, self.num_front)
        self.cache.reserve(stored + len(ids[0]))
        ids_BT = torch.tensor(ids, device=self.device)
        places_B2T = torch.tensor(places, device=self.device).transpose(1, 2)
        with torch.inference_mode():
            hidden_BTD = self.model(ids_BT, places_B2T, self._mask(len(ids[0])), self.cache)
            logits_BV = self.model.logits(hidden_BTD[:, -1])
        # Made anew for each text read, because the weights may have changed since the last one.
        self._fast = column_decoder(self.model)
        return logits_BV
