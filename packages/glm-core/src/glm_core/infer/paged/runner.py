"""Runs a model over many texts at once, whose keys and values lie in pages.

Letters: T new columns of a text, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from glm_core.infer.batch import Place
from glm_core.infer.layout import layout_for
from glm_core.infer.paged.adapters import Adapters
from glm_core.infer.paged.compute import Compute, mask_of
from glm_core.infer.paged.index import Column
from glm_core.infer.paged.store import PAGE_SIZE, PageStore
from glm_core.infer.paged.text import PagedText, front_and
from glm_core.infer.paged.text_pages import TextPages
from glm_core.infer.paged.work import Work
from glm_core.model.transformer import Transformer


class Runner:
    """A model and a pool of pages. Not thread-safe: one thread calls it.

    The texts' answers do not depend on each other. A text's first columns are taken from an earlier
    or a running text that begins with the same tokens at the same places, where that is valid: in
    causal texts page by page, and in those whose context is visible to all of it (`prefix_len`)
    when the whole context is the same.

    Args:
        model: in evaluation mode.
        num_pages: of PAGE_SIZE columns each; a tuned prefix takes columns too.
        dtype: of keys and values; by default the model's.
    """

    page_size = PAGE_SIZE

    def __init__(
        self, model: Transformer, num_pages: int, dtype: torch.dtype | None = None
    ) -> None:
        self.model = model
        self._store = PageStore(model.config, num_pages, dtype or model.dtype, model.device)
        self._pages = TextPages(self._store)
        self._adapters = Adapters(model)
        self._compute = Compute(model, self._store, self._adapters)
        self._state = _state_of_weights(model)

    @property
    def num_pages(self) -> int:
        """Pages there are."""
        return self._store.num_pages

    @property
    def num_free_pages(self) -> int:
        """Pages to be had: kept beginnings that no text uses count as free, promised ones not."""
        return self._pages.book.num_free

    def pages_for(self, count: int, adapter: str = "") -> int:
        """Returns how many pages a text of so many columns takes."""
        return -(-(self._adapters.num_front(adapter) + count) // PAGE_SIZE)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that texts may be computed with."""
        return self._adapters.names

    def add_adapter(self, name: str, folder: Path | str) -> None:
        """Reads an adapter: a folder of LoRA as PEFT writes it, or a prefix of P-tuning v2.

        Raises:
            ValueError: the name is empty or taken.
            CheckpointError: there is no adapter, or one of another model.
        """
        self._adapters.add(name, folder)

    def open(
        self,
        ids: Sequence[int],
        places: Sequence[Place],
        prefix_len: int = 0,
        adapter: str = "",
    ) -> tuple[PagedText, int]:
        """Begins a text, with what is known of its beginning.

        Args:
            ids: what it is to read first; at least the last of it remains to be read.
            places: position and block position of each.
            prefix_len: columns of context that see each other; 0 is causal.
            adapter: what it is to be computed with.

        Returns:
            The text, and how many of `ids` it has read already.

        Raises:
            ValueError: there are no ids, or fewer than `prefix_len`; or the adapter is unknown.
        """
        if not len(ids) == len(places) or not 0 <= prefix_len <= len(ids) or not ids:
            raise ValueError(
                f"a text of {len(ids)} ids, {len(places)} places and a context of {prefix_len}: "
                "each id has a place, and the context is part of them"
            )
        self._adapters.check(adapter)
        self._look_at_weights()
        front = self._adapters.num_front(adapter)
        columns = front_and(front, _columns(ids, places))
        context = columns[front : front + prefix_len]
        text = PagedText(context, adapter, front, self._pages.epoch)
        self._pages.begin(text, columns)
        return text, text.length

    def reserve(self, text: PagedText, count: int, forks: int = 0, at: int = 0) -> bool:
        """Sets pages aside for `count` more columns of a text.

        Args:
            forks: so many forks of it get pages for as many columns as it has then.
            at: length at which they will be made.

        Returns:
            Whether there were enough; otherwise nothing is changed.
        """
        return self._pages.reserve(text, count, forks, at)

    def room(self, text: PagedText) -> int:
        """Returns how many more columns a text has pages for, reserved ones included."""
        pages = len(text.pages) + text.promised
        return pages * PAGE_SIZE - text.stored_after(0)

    def num_droppable(self, text: PagedText) -> int:
        """Returns how many columns, one more read before them, a text can read and forget again
        without a copy: those that do not fill its last page."""
        return max(PAGE_SIZE - text.stored_after(0) % PAGE_SIZE - 2, 0)

    def step(self, works: Sequence[Work]) -> list[Tensor | None]:
        """Reads new columns; those of texts that get one go as one batch.

        Args:
            works: at most one of a text. The context of a text whose `prefix_len` is not 0 must be
                read in one piece.

        Returns:
            For each work fp32 logits after its last column, [V], or after all, [T, V], or None.

        Raises:
            ValueError: a work is not one that its text can do.
            PagesExhausted: there is no room for a column.
            Exception: what the model raises. After any, no text has read anything.
        """
        for work in works:
            self._check(work)
            self._pages.make_room(work.text, len(work.ids))
        results = self._compute.run(works)
        for work in works:
            self._pages.add(work.text, _columns(work.ids, work.places))
        return results

    def crop(self, text: PagedText, length: int) -> None:
        """Forgets the columns of a text from `length` on.

        Raises:
            ValueError: the text is shorter, or its context would be cut.
            PagesExhausted: there is no page for a copy of one that others use too.
        """
        if not 0 <= length <= text.length or 0 < length < text.prefix_len:
            raise ValueError(
                f"cannot crop a text of {text.length} columns and a context of {text.prefix_len} "
                f"to {length}"
            )
        self._pages.crop(text, text.num_front + length if text.columns else 0)

    def fork(self, text: PagedText) -> PagedText:
        """Returns a text that begins as this one does, with pages set aside by `reserve`.

        Raises:
            PagesExhausted: there is no page for a copy of the last one.
        """
        return self._pages.fork(text)

    def close(self, text: PagedText, keep: bool = True) -> None:
        """Ends a text; a second time it does nothing.

        Args:
            keep: whether its columns may begin later texts, until their pages are needed.
        """
        self._pages.close(text, keep)

    def invalidate(self) -> None:
        """Forgets all beginnings, because the weights have changed.

        `open` calls it where it sees such a change. Texts that are open go on, with what they have.
        """
        self._pages.forget()
        self._compute.see_weights()
        self._state = _state_of_weights(self.model)

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """Returns the mean of a text's last hidden states, of length 1; fp32 [D].

        Raises:
            ValueError: there are no ids, or more than the model's context holds.
        """
        limit = self.model.config.max_position_embeddings
        if not 0 < len(ids) <= limit:
            raise ValueError(
                f"a text of {len(ids)} tokens cannot be embedded: it must have 1 to {limit}"
            )
        prefix_len = layout_for(self.model.config).prefix_len(len(ids))
        ids_1T = torch.tensor([list(ids)], device=self.model.device)
        hidden_1TD = self.model(ids_1T, mask=mask_of(prefix_len))
        return nn.functional.normalize(hidden_1TD[0].float().mean(0), dim=0)

    def _check(self, work: Work) -> None:
        text, count = work.text, len(work.ids)
        if not text.is_open:
            raise ValueError("a text that is closed cannot be read on")
        if count == 0 or len(work.places) != count:
            raise ValueError(
                f"a work of {count} ids and {len(work.places)} places: there must be one, and each "
                "has a place"
            )
        if text.length < text.prefix_len and (
            text.length or text.context != _columns(work.ids, work.places)[: text.prefix_len]
        ):
            raise ValueError(
                f"a context of {text.prefix_len} columns that see each other must be read in one "
                f"piece as it was opened, not {count} columns after {text.length}"
            )

    def _look_at_weights(self) -> None:
        if _state_of_weights(self.model) != self._state:
            self.invalidate()


def _columns(ids: Sequence[int], places: Sequence[Place]) -> list[Column]:
    return [(token, *place) for token, place in zip(ids, places, strict=True)]


def _state_of_weights(model: Transformer) -> list[tuple[int, int]]:
    """Returns what changes when a weight is replaced or written to.

    Every text that is begun asks for it, so it walks the modules itself: torch makes up the names.
    """
    found: list[tuple[int, int]] = []
    modules: list[nn.Module | None] = [model]
    for module in modules:
        if module is not None:
            modules += module._modules.values()
            for x in chain(module._parameters.values(), module._buffers.values()):
                if x is not None:
                    found.append((x.data_ptr(), 0 if x.is_inference() else x._version))
    return found
