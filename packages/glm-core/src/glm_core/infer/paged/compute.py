"""How the columns of a step are computed: those of all texts together, or a long work alone.

Letters: B texts, T new columns of a text, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_core.attention import Causal, Full, LeftPadded, MaskSpec, PrefixLM
from glm_core.infer.fast_decode import fast_decoder
from glm_core.infer.paged.adapters import Adapters
from glm_core.infer.paged.columns import PagedColumns
from glm_core.infer.paged.step_rows import StepRows
from glm_core.infer.paged.store import PageStore
from glm_core.infer.paged.work import Work
from glm_core.model.transformer import Transformer

MOST_COLUMNS = 64
"""A work of more columns is read alone, by the model's own forward: alone, as many take as long in
either way; beside others the compiled step reads the weights once for all."""
MOST_ROWS = 512
"""Columns that the compiled step takes at once."""


class Compute:
    """Runs works whose texts have room for their columns; it counts none as read."""

    def __init__(self, model: Transformer, store: PageStore, adapters: Adapters) -> None:
        self._model, self._store, self._adapters = model, store, adapters
        self.see_weights()

    def see_weights(self) -> None:
        """Looks at the weights again, after they have changed."""
        self._fast = fast_decoder(self._model)

    @torch.inference_mode()
    def run(self, works: Sequence[Work]) -> list[Tensor | None]:
        """Returns fp32 logits for each work: [V], [T, V] or None, as it wants."""
        results: list[Tensor | None] = [None] * len(works)
        compiled: list[int] = []
        batched: list[int] = []
        for number, work in enumerate(works):
            if self._is_compiled(work):
                compiled.append(number)
            elif len(work.ids) == 1 and work.text.columns:
                batched.append(number)
            else:
                results[number] = self._read(work)
        for numbers, run in ((compiled, self._run_compiled), (batched, self._run_batch)):
            for part in _parts(works, numbers):
                logits = run([works[number] for number in part])
                for number, one in zip(part, logits, strict=True):
                    results[number] = one
        return results

    def _is_compiled(self, work: Work) -> bool:
        """Whether the compiled step computes a work: columns of others are as near as its own."""
        text = work.text
        is_ready = bool(text.columns) or not text.num_front
        is_short = len(work.ids) <= MOST_COLUMNS
        return self._fast is not None and is_ready and is_short and not self._is_lora(work)

    def _is_lora(self, work: Work) -> bool:
        return self._adapters.is_lora(work.text.adapter)

    def _run_compiled(self, works: Sequence[Work]) -> list[Tensor | None]:
        """All columns by the compiled step, in one call: a row for each."""
        assert self._fast is not None
        rows = StepRows(works, len(self._store.keys[0]))
        logits_BV = self._fast.step_pages(
            rows.tokens,
            rows.places,
            rows.pages,
            self._store.keys,
            self._store.values,
            rows.num_logits,
        )
        return rows.of_works(logits_BV)

    def _run_batch(self, works: Sequence[Work]) -> list[Tensor | None]:
        """One column of each text by the model's forward."""
        stored = [len(work.text.columns) for work in works]
        pads = tuple(max(stored) - count for count in stored)
        cache = PagedColumns(self._store, [work.text.pages for work in works], stored, 1)
        mask = LeftPadded(Causal(), pads) if any(pads) else Full()
        with self._adapters.on_rows([work.text.adapter for work in works]):
            hidden_B1D = self._forward(works, mask, cache)
        rows = self._model.logits(hidden_B1D).float().unbind()
        return [_wanted(work, row) for work, row in zip(works, rows, strict=True)]

    def _read(self, work: Work) -> Tensor | None:
        """The columns of one text."""
        text = work.text
        stored, new = len(text.columns), len(work.ids)
        cache = PagedColumns(
            self._store, [text.pages], [stored], new if stored else text.num_front + new
        )
        with self._adapters.on_text(text.adapter):
            hidden_1TD = self._forward([work], mask_of(text.prefix_len), cache)
        if work.wants == "none":
            return None
        return _wanted(work, self._model.logits(hidden_1TD[0, work.num_unasked :]).float())

    def _forward(self, works: Sequence[Work], mask: MaskSpec, cache: PagedColumns) -> Tensor:
        """Returns hidden states, [B, T, D]."""
        device = self._model.device
        ids_BT = torch.tensor([list(work.ids) for work in works], device=device)
        places_BT2 = torch.tensor([list(work.places) for work in works], device=device)
        hidden_BTD: Tensor = self._model(ids_BT, places_BT2.transpose(1, 2), mask, cache)
        return hidden_BTD


def _parts(works: Sequence[Work], numbers: Sequence[int]) -> list[list[int]]:
    """Cuts works into parts of at most MOST_ROWS columns."""
    parts: list[list[int]] = []
    room = 0
    for number in numbers:
        if works[number].count > room:
            parts.append([])
            room = MOST_ROWS
        parts[-1].append(number)
        room -= works[number].count
    return parts


def _wanted(work: Work, logits: Tensor) -> Tensor | None:
    """Args: logits: of the columns from the first that is wanted on, [., V]."""
    if work.wants == "none":
        return None
    return logits[-1] if work.wants == "last" else logits


def mask_of(prefix_len: int) -> MaskSpec:
    """Returns the mask of a text whose first columns may see each other."""
    return PrefixLM((prefix_len,)) if prefix_len else Causal()
