"""Runs a model over many texts at once, whose keys and values lie in pages.

Letters: B texts, T new columns of a text, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from glm_core.attention import Causal, Full, LeftPadded, MaskSpec, PrefixLM
from glm_core.infer.batch import Place
from glm_core.infer.fast_decode import FastDecoder, fast_decoder
from glm_core.infer.layout import layout_for
from glm_core.infer.paged.book import PageBook
from glm_core.infer.paged.columns import PagedColumns
from glm_core.infer.paged.index import Column, Node
from glm_core.infer.paged.store import PAGE_SIZE, PageStore
from glm_core.infer.paged.text import PagedText, front_and
from glm_core.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Work:
    """New columns of a text."""

    text: PagedText
    ids: Sequence[int]
    places: Sequence[Place]
    """Position and block position of each."""
    wants: Literal["none", "last", "all"] = "last"
    """Of which columns the logits are asked for."""


class Runner:
    """A model and a pool of pages. Not thread-safe: one thread calls it.

    The texts' answers do not depend on each other. A text's first columns are taken from an earlier
    or a running text that begins with the same tokens at the same places, where that is valid: in
    causal texts page by page, and in those whose context is visible to all of it (`prefix_len`)
    when the whole context is the same.

    Args:
        model: in evaluation mode.
        num_pages: of PAGE_SIZE columns each; a tuned prefix takes columns too.
    """

    page_size = PAGE_SIZE

    def __init__(self, model: Transformer, num_pages: int) -> None:
        self.model = model
        self._store = PageStore(model.config, num_pages, model.dtype, model.device)
        self._book = PageBook(num_pages, PAGE_SIZE)
        self._epoch = 0
        self._see_weights()

    @property
    def num_pages(self) -> int:
        """Pages there are."""
        return self._book.num_pages

    @property
    def num_free_pages(self) -> int:
        """Pages to be had: kept beginnings that no text uses count as free, promised ones not."""
        return self._book.num_free

    def pages_for(self, count: int, adapter: str = "") -> int:
        """Returns how many pages a text of so many columns takes."""
        return -(-(self._num_front(adapter) + count) // PAGE_SIZE)

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
            ValueError: there are no ids, or fewer than `prefix_len`.
        """
        if not len(ids) == len(places) or not 0 <= prefix_len <= len(ids) or not ids:
            raise ValueError(
                f"a text of {len(ids)} ids, {len(places)} places and a context of {prefix_len}: "
                "each id has a place, and the context is part of them"
            )
        self._look_at_weights()
        front = self._num_front(adapter)
        columns = front_and(front, _columns(ids, places))
        context = columns[front : front + prefix_len]
        text = PagedText(context, adapter, front, self._epoch)
        nodes, rest = self._book.match(text.kind, columns[:-1])
        found = len(nodes) * PAGE_SIZE + (rest[1] if rest else 0)
        if found > front and found >= front + prefix_len:
            self._begin_with(text, columns, nodes, rest)
        return text, text.length

    def reserve(self, text: PagedText, count: int, forks: int = 0, at: int = 0) -> bool:
        """Sets pages aside for `count` more columns of a text.

        Args:
            forks: so many forks of it get pages for as many columns as it has then.
            at: length at which they will be made.

        Returns:
            Whether there were enough; otherwise nothing is changed.
        """
        assert not text.fork_promises, "forks have pages already"
        pages = -(-text.stored_after(count) // PAGE_SIZE)
        own = max(pages - len(text.pages) - text.promised, 0)
        of_fork = pages - (text.num_front + at) // PAGE_SIZE
        if not self._book.promise(own + forks * of_fork):
            return False
        text.promised += own
        text.fork_promises = [of_fork] * forks
        return True

    def room(self, text: PagedText) -> int:
        """Returns how many more columns a text has pages for, reserved ones included."""
        pages = len(text.pages) + text.promised
        return pages * PAGE_SIZE - text.stored_after(0)

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
            self._make_room(work)
        results: list[Tensor | None] = [None] * len(works)
        with torch.inference_mode():
            for numbers in self._batches(works):
                batch = [works[number] for number in numbers]
                for number, logits in zip(numbers, self._run(batch), strict=True):
                    results[number] = logits
        for work in works:
            self._count(work)
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
        stored = text.num_front + length if text.columns else 0
        whole, part = divmod(stored, PAGE_SIZE)
        shared, text.nodes = text.pages[whole : len(text.nodes)], text.nodes[:whole]
        own = text.pages[whole + len(shared) :]
        if shared and part:
            if not own:
                own.append(self._take(text))
            self._store.copy(shared[0], own[0], part)
        for page in shared:
            self._book.release(page)
            text.promised += self._book.promise(1)
        text.pages[whole:] = own
        text.pages_changed()
        del text.columns[stored:]

    def fork(self, text: PagedText) -> PagedText:
        """Returns a text that begins as this one does, with pages set aside by `reserve`.

        Raises:
            PagesExhausted: there is no page for a copy of the last one.
        """
        fork = PagedText(text.context, text.adapter, text.num_front, text.epoch)
        if text.fork_promises:
            fork.promised = text.fork_promises.pop()
        whole, part = divmod(len(text.columns), PAGE_SIZE)
        for page in text.pages[:whole]:
            self._book.hold(page)
        fork.pages = text.pages[:whole]
        fork.nodes, fork.columns = text.nodes[:whole], list(text.columns)
        if part:
            try:
                fork.pages.append(self._take(fork))
            except Exception:
                self._close(fork)
                raise
            self._store.copy(text.pages[whole], fork.pages[whole], part)
        return fork

    def close(self, text: PagedText, keep: bool = True) -> None:
        """Ends a text; a second time it does nothing.

        Args:
            keep: whether its columns may begin later texts, until their pages are needed.
        """
        if not text.is_open:
            return
        if keep and self._is_current(text):
            whole, part = divmod(len(text.columns), PAGE_SIZE)
            if part and len(text.nodes) == whole:
                before = text.nodes[-1] if text.nodes else None
                block = tuple(text.columns[-part:])
                self._book.keep(text.kind, before, block, text.pages[whole])
        self._close(text)

    def invalidate(self) -> None:
        """Forgets all beginnings, because the weights have changed.

        `open` calls it where it sees such a change. Texts that are open go on, with what they have.
        """
        self._epoch += 1
        self._book.forget()
        self._see_weights()

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
        hidden_1TD = self.model(ids_1T, mask=_mask(prefix_len))
        return nn.functional.normalize(hidden_1TD[0].float().mean(0), dim=0)

    def _begin_with(
        self,
        text: PagedText,
        columns: Sequence[Column],
        nodes: list[Node],
        rest: tuple[Node, int] | None,
    ) -> None:
        """Gives a text the pages of `nodes`, and a copy of `rest`, as far as there is room."""
        needed = self._book.cost(nodes) + (self._book.cost([rest[0]]) + 1 if rest else 0)
        if needed > self._book.num_free:
            return
        for node in nodes:
            self._book.hold(node.page)
        text.nodes, text.pages = nodes, [node.page for node in nodes]
        count = len(nodes) * PAGE_SIZE
        if rest is not None:
            node, part = rest
            self._book.hold(node.page)
            text.pages.append(self._book.take())
            self._store.copy(node.page, text.pages[-1], part)
            self._book.release(node.page)
            count += part
        text.columns = list(columns[:count])

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

    def _make_room(self, work: Work) -> None:
        text = work.text
        needed = -(-text.stored_after(len(work.ids)) // PAGE_SIZE)
        while len(text.pages) < needed:
            text.pages.append(self._take(text))
            text.pages_changed()

    def _take(self, text: PagedText) -> int:
        if not text.promised:
            return self._book.take()
        text.promised -= 1
        return self._book.take_promised()

    def _batches(self, works: Sequence[Work]) -> list[list[int]]:
        """Returns which works go together: single columns of one adapter."""
        single: dict[str, list[int]] = {}
        batches = []
        for number, work in enumerate(works):
            if len(work.ids) > 1 or not work.text.columns:
                batches.append([number])
            else:
                single.setdefault(work.text.adapter, []).append(number)
        return [*batches, *single.values()]

    def _run(self, works: Sequence[Work]) -> list[Tensor | None]:
        """Computes works of as many columns each."""
        if self._fast is not None and len(works[0].ids) == 1 and works[0].text.columns:
            return self._run_compiled(self._fast, works)
        texts = [work.text for work in works]
        front, num_new = texts[0].num_front, len(works[0].ids)
        stored = [len(text.columns) for text in texts]
        is_first = stored[0] == 0
        cache = PagedColumns(
            self._store,
            [text.pages for text in texts],
            stored,
            num_new + front * is_first,
            0 if is_first else front,
        )
        pads = [max(stored) - count for count in stored]
        ids_BT = torch.tensor([work.ids for work in works], device=self.model.device)
        places_BT2 = torch.tensor([list(work.places) for work in works], device=self.model.device)
        if num_new == 1:
            mask: MaskSpec = LeftPadded(Causal(), tuple(pads)) if any(pads) else Full()
        else:
            mask = _mask(texts[0].prefix_len)
        hidden_BTD = self.model(ids_BT, places_BT2.transpose(1, 2), mask, cache)
        return self._logits(works, hidden_BTD)

    def _run_compiled(self, fast: FastDecoder, works: Sequence[Work]) -> list[Tensor | None]:
        """Computes one column of each text by the compiled step."""
        num_columns = len(self._store.keys[0])
        logits_BV = fast.step_pages(
            [work.ids[0] for work in works],
            [work.places[0] for work in works],
            [work.text.table(num_columns) for work in works],
            [len(work.text.columns) for work in works],
            self._store.keys,
            self._store.values,
        )
        rows = zip(works, logits_BV.unbind(), strict=True)
        return [None if work.wants == "none" else row for work, row in rows]

    def _logits(self, works: Sequence[Work], hidden_BTD: Tensor) -> list[Tensor | None]:
        wants = {work.wants for work in works}
        if wants == {"none"}:
            return [None] * len(works)
        if "all" not in wants:
            rows = self.model.logits(hidden_BTD[:, -1]).float().unbind()
        else:
            rows = self.model.logits(hidden_BTD).float().unbind()
        return [_wanted(work, row) for work, row in zip(works, rows, strict=True)]

    def _count(self, work: Work) -> None:
        """Counts what has been read, and lets others begin with the pages that are full."""
        text = work.text
        if not text.columns:
            text.columns = front_and(text.num_front, ())
        text.columns += _columns(work.ids, work.places)
        if self._is_current(text):
            for number in range(len(text.nodes), len(text.columns) // PAGE_SIZE):
                self._share(text, number)

    def _share(self, text: PagedText, number: int) -> None:
        block = tuple(text.columns[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])
        before = text.nodes[-1] if text.nodes else None
        page = text.pages[number]
        node = self._book.keep(text.kind, before, block, page)
        text.nodes.append(node)
        if node.page != page:  # another text came first
            self._book.hold(node.page)
            self._book.release(page)
            text.pages[number] = node.page
            text.pages_changed()

    def _is_current(self, text: PagedText) -> bool:
        return text.epoch == self._epoch

    def _see_weights(self) -> None:
        self._state = _state_of_weights(self.model)
        self._fast = fast_decoder(self.model)

    def _look_at_weights(self) -> None:
        if _state_of_weights(self.model) != self._state:
            self.invalidate()

    def _close(self, text: PagedText) -> None:
        for page in reversed(text.pages):
            self._book.release(page)
        self._book.take_back(text.promised + sum(text.fork_promises))
        text.pages, text.nodes, text.promised, text.fork_promises = [], [], 0, []
        text.is_open = False

    def _num_front(self, adapter: str) -> int:
        return 0 if self.model.prefix is None else self.model.prefix.prefix_len


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """Returns the logits of some works as one tensor, [B, V]; without a copy where they lie so.

    Args:
        rows: [V] each, contiguous.
    """
    first, width = rows[0], rows[0].numel()
    start, step = first.data_ptr(), width * first.element_size()
    storage = first.untyped_storage().data_ptr()
    for number, row in enumerate(rows):
        if row.data_ptr() != start + number * step or row.untyped_storage().data_ptr() != storage:
            return torch.stack(list(rows))
    return first.as_strided((len(rows), width), (width, 1))


def _mask(prefix_len: int) -> MaskSpec:
    return PrefixLM((prefix_len,)) if prefix_len else Causal()


def _wanted(work: Work, logits: Tensor) -> Tensor | None:
    """Args: logits: of the last column, [V], or of all, [T, V]."""
    if work.wants == "none":
        return None
    return logits[-1] if work.wants == "last" and logits.dim() == 2 else logits


def _columns(ids: Sequence[int], places: Sequence[Place]) -> list[Column]:
    return [(token, *place) for token, place in zip(ids, places, strict=True)]


def _state_of_weights(model: Transformer) -> list[tuple[int, int]]:
    """Returns what changes when a weight is replaced or written to."""
    tensors = chain(model.parameters(), model.buffers())
    return [(x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors]
