"""Pages under any sequence of events: none is lost, none is given twice, each holds its columns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glm_core.infer.paged import PAGE_SIZE, PagedText, PagesExhausted, Runner, Work
from glm_core.infer.paged.book import PageBook
from glm_core.infer.paged.index import Node
from glm_core.testing import tiny_model

NUM_PAGES = 9
BASE = [5, 7, 5, 5, 9, 7] * 40
"""Texts begin with some of it, and so with each other."""


def straight(start: int, stop: int) -> list[tuple[int, int]]:
    return [(column, 0) for column in range(start, stop)]


class PagesMachine(RuleBasedStateMachine):
    """Texts come, grow, fork, shrink and go. A key of the first layer is its token and place."""

    @initialize()
    def start(self) -> None:
        self.model = tiny_model("chatglm2-6b", num_layers=1, max_position_embeddings=512)
        self.runner = Runner(self.model, NUM_PAGES)
        self.texts: list[PagedText] = []
        self.wanted: dict[int, list[int]] = {}

    @rule(common=st.integers(1, 200), tail=st.integers(0, 3))
    def open(self, common: int, tail: int) -> None:
        ids = [*BASE[:common], *range(20, 20 + tail)]
        text, cached = self.runner.open(ids, straight(0, len(ids)))
        assert cached < len(ids)
        self.texts.append(text)
        self.wanted[id(text)] = ids

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), count=st.integers(1, 130))
    def read(self, data: Any, count: int) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.texts), max_size=3, unique_by=id))
        works = []
        for text in chosen:
            at = text.length
            ids = (self.wanted[id(text)] + [60] * 512)[at : min(at + count, 300)]
            works += [Work(text, ids, straight(at, at + len(ids)), "none")] if ids else []
        before = [text.length for text in self.texts]
        try:
            self.runner.step(works)
        except PagesExhausted:
            assert [text.length for text in self.texts] == before

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), count=st.integers(0, 150), forks=st.integers(0, 2))
    def reserve(self, data: Any, count: int, forks: int) -> None:
        text = data.draw(st.sampled_from(self.texts))
        if text.fork_promises:
            return
        free = self.runner.num_free_pages
        if self.runner.reserve(text, count, forks, at=text.length):
            assert self.runner.room(text) >= count
        else:
            assert self.runner.num_free_pages == free

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), share=st.floats(0, 1))
    def crop(self, data: Any, share: float) -> None:
        text = data.draw(st.sampled_from(self.texts))
        length = int(share * text.length)
        try:
            self.runner.crop(text, length)
        except PagesExhausted:
            return
        assert text.length == length

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def fork(self, data: Any) -> None:
        text = data.draw(st.sampled_from(self.texts))
        try:
            fork = self.runner.fork(text)
        except PagesExhausted:
            return
        self.texts.append(fork)
        self.wanted[id(fork)] = self.wanted[id(text)]

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), keep=st.booleans())
    def close(self, data: Any, keep: bool) -> None:
        text = data.draw(st.sampled_from(self.texts))
        self.texts = [one for one in self.texts if one is not text]
        self.runner.close(text, keep)
        self.runner.close(text, keep)

    @rule()
    def invalidate(self) -> None:
        self.runner.invalidate()

    @invariant()
    def every_page_is_accounted_for(self) -> None:
        check_accounts(self.runner._pages.book, self.texts)

    @invariant()
    def every_text_has_its_keys(self) -> None:
        table = _keys_by_place(self.model)
        for text in self.texts:
            if not text.columns:
                continue
            pages = torch.tensor(text.pages)[:, None] * PAGE_SIZE + torch.arange(PAGE_SIZE)
            stored = self.runner._store.keys[0][pages.flatten()[: text.length]]
            tokens, positions, _ = zip(*text.columns, strict=True)
            wanted = table(tokens, positions)
            assert torch.allclose(stored, wanted, atol=1e-5)

    def teardown(self) -> None:
        for text in self.texts:
            self.runner.close(text)
        assert self.runner.num_free_pages == NUM_PAGES
        self.runner.invalidate()
        assert sorted(self.runner._pages.book._free) == list(range(NUM_PAGES))


def _keys_by_place(model: Any) -> Any:
    """The first layer's keys of tokens at positions, by the model's own parts."""
    from glm_core.model.positions import build_rotation

    def table(tokens: tuple[int, ...], positions: tuple[int, ...]) -> torch.Tensor:
        places = torch.tensor([[positions, (0,) * len(positions)]])
        block = model.layers[0]
        with torch.no_grad():
            x = block.input_norm(model.embed(torch.tensor([tokens]), places))
            _, keys, _ = block.attention.split(block.attention.query_key_value(x))
            rotate = build_rotation(model.config, places, torch.float32)
            return rotate(keys)[0]

    return table


def check_accounts(book: PageBook, texts: list[PagedText]) -> None:
    held = Counter(page for text in texts for page in text.pages)
    assert [held[page] for page in range(book.num_pages)] == book._holders
    for text in texts:
        assert len(set(text.pages)) == len(text.pages)
        assert len(text.pages) * PAGE_SIZE >= len(text.columns)
    nodes = _reachable(book)
    assert {node.page: node for node in nodes} == book._nodes
    idle = [node for node in nodes if not held[node.page]]
    assert book._num_idle == len(idle)
    assert set(book._ends) == {node for node in idle if not node.children}
    assert all(child in idle for node in idle for child in node.children.values())
    taken = set(held) | set(book._nodes)
    assert sorted([*book._free, *taken]) == list(range(book.num_pages))
    assert book._promised == sum(text.promised + sum(text.fork_promises) for text in texts)
    assert book.num_free >= 0


def _reachable(book: PageBook) -> list[Node]:
    found: list[Node] = []
    todo = list(book._index._roots.values())
    while todo:
        node = todo.pop()
        assert sorted(node.children) == node.order
        found += node.children.values()
        todo += node.children.values()
    return found


PagesMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestPages = PagesMachine.TestCase


def test_the_longest_unused_end_is_given_away_when_a_page_is_needed() -> None:
    book = PageBook(3, 1)
    column = [((token, 0, 0),) for token in range(4)]
    first = book.take()
    before = book.keep("", None, column[0], first)
    second = book.take()
    book.keep("", before, column[1], second)
    other = book.take()
    book.keep("", None, column[2], other)
    for page in (second, first, other):
        book.release(page)
    assert [book.take() for _ in range(3)] == [second, first, other]
    with pytest.raises(PagesExhausted, match="of 3 pages is full"):
        book.take()


def test_a_promise_is_kept_when_others_ask() -> None:
    book = PageBook(2, 1)
    assert book.promise(1) and not book.promise(2)
    book.take()
    with pytest.raises(PagesExhausted, match="is full"):
        book.take()
    assert book.take_promised() == 1
