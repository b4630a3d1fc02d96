"""How the columns of a step are computed: one batch of single columns, and longer works alone.

Letters: B texts, T new columns of a text, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_core.attention import Causal, Full, LeftPadded, MaskSpec, PrefixLM
from glm_core.infer.fast_decode import FastDecoder, fast_decoder
from glm_core.infer.paged.adapters import Adapters
from glm_core.infer.paged.columns import PagedColumns
from glm_core.infer.paged.store import PageStore
from glm_core.infer.paged.work import Work
from glm_core.model.transformer import Transformer


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
            if len(work.ids) > 1 or not work.text.columns:
                results[number] = self._read(work)
            elif self._fast is None or self._adapters.is_lora(work.text.adapter):
                batched.append(number)
            else:
                compiled.append(number)
        for numbers, run in ((compiled, self._run_compiled), (batched, self._run_batch)):
            if numbers:
                some = [works[number] for number in numbers]
                for number, logits in zip(numbers, run(some).unbind(), strict=True):
                    results[number] = works[number].wanted(logits)
        return results

    def _run_compiled(self, works: Sequence[Work]) -> Tensor:
        """One column of each text by the compiled step; returns logits, [B, V]."""
        assert isinstance(self._fast, FastDecoder)
        num_columns = len(self._store.keys[0])
        return self._fast.step_pages(
            [work.ids[0] for work in works],
            [work.places[0] for work in works],
            [work.text.table(num_columns) for work in works],
            [len(work.text.columns) for work in works],
            self._store.keys,
            self._store.values,
        )

    def _run_batch(self, works: Sequence[Work]) -> Tensor:
        """One column of each text by the model's forward; returns logits, [B, V]."""
        stored = [len(work.text.columns) for work in works]
        pads = tuple(max(stored) - count for count in stored)
        cache = PagedColumns(self._store, [work.text.pages for work in works], stored, 1)
        mask = LeftPadded(Causal(), pads) if any(pads) else Full()
        with self._adapters.on_rows([work.text.adapter for work in works]):
            hidden_B1D = self._forward(works, mask, cache)
        return self._model.logits(hidden_B1D[:, -1]).float()

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
        hidden = hidden_1TD[0, -1] if work.wants == "last" else hidden_1TD[0]
        return self._model.logits(hidden).float()

    def _forward(self, works: Sequence[Work], mask: MaskSpec, cache: PagedColumns) -> Tensor:
        """Returns hidden states, [B, T, D]."""
        device = self._model.device
        ids_BT = torch.tensor([list(work.ids) for work in works], device=device)
        places_BT2 = torch.tensor([list(work.places) for work in works], device=device)
        hidden_BTD: Tensor = self._model(ids_BT, places_BT2.transpose(1, 2), mask, cache)
        return hidden_BTD


def mask_of(prefix_len: int) -> MaskSpec:
    """Returns the mask of a text whose first columns may see each other."""
    return PrefixLM((prefix_len,)) if prefix_len else Causal()
