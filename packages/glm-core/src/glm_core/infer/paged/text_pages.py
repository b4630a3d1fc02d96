"""The pages of texts: taken, shared, copied and given back as the texts grow, shrink and end."""

from __future__ import annotations

from collections.abc import Sequence

from glm_core.infer.paged.book import PageBook, PagesExhausted
from glm_core.infer.paged.index import Column, Node
from glm_core.infer.paged.store import PAGE_SIZE, PageStore
from glm_core.infer.paged.text import PagedText, front_and


class TextPages:
    """Gives texts the pages of a store. A text writes only to pages that no other one holds."""

    def __init__(self, store: PageStore) -> None:
        self.book = PageBook(store.num_pages, PAGE_SIZE)
        self.epoch = 0
        """State of the weights; columns of an earlier one begin no other text."""
        self._store = store

    def begin(self, text: PagedText, columns: Sequence[Column]) -> None:
        """Gives a new text what is known of `columns`, all but the last one of them.

        Its context is known as a whole or not at all.
        """
        nodes, rest = self.book.match(text.kind, columns[:-1])
        found = len(nodes) * PAGE_SIZE + (rest[1] if rest else 0)
        if found > text.num_front and found >= text.num_front + text.prefix_len:
            self._begin_with(text, nodes, rest)
            text.columns = list(columns[: found if text.pages else 0])

    def reserve(self, text: PagedText, count: int, forks: int, at: int) -> bool:
        """Sets pages aside; see `Runner.reserve`."""
        assert not text.fork_promises, "forks have pages already"
        pages = -(-text.stored_after(count) // PAGE_SIZE)
        own = max(pages - len(text.pages) - text.promised, 0)
        of_fork = pages - (text.num_front + at) // PAGE_SIZE
        if not self.book.promise(own + forks * of_fork):
            return False
        text.promised += own
        text.fork_promises = [of_fork] * forks
        return True

    def make_room(self, text: PagedText, count: int) -> None:
        """Takes the pages for `count` more columns.

        Raises:
            PagesExhausted: there are not as many.
        """
        needed = -(-text.stored_after(count) // PAGE_SIZE)
        while len(text.pages) < needed:
            text.pages.append(self._take(text))
            text.pages_changed()

    def add(self, text: PagedText, columns: Sequence[Column]) -> None:
        """Counts columns as stored, and lets others begin with the pages that are full."""
        if not text.columns:
            text.columns = front_and(text.num_front, ())
        text.columns += columns
        if text.epoch == self.epoch:
            for number in range(len(text.nodes), len(text.columns) // PAGE_SIZE):
                self._share(text, number)

    def crop(self, text: PagedText, stored: int) -> None:
        """Forgets all but the first `stored` columns, those of a tuned prefix counted."""
        whole, part = divmod(stored, PAGE_SIZE)
        shared = text.pages[whole : len(text.nodes)]
        own = text.pages[whole + len(shared) :]
        if shared and part:
            own = own or [self._take(text)]
            self._store.copy(shared[0], own[0], part)
        for page in shared:
            self.book.release(page)
            text.promised += self.book.promise(1)
        text.pages[whole:] = own
        text.pages_changed()
        del text.nodes[whole:]
        del text.columns[stored:]

    def fork(self, text: PagedText) -> PagedText:
        """Returns a text with the same columns; see `Runner.fork`."""
        fork = PagedText(text.context, text.adapter, text.num_front, text.epoch)
        if text.fork_promises:
            fork.promised = text.fork_promises.pop()
        whole, part = divmod(len(text.columns), PAGE_SIZE)
        for page in text.pages[:whole]:
            self.book.hold(page)
        fork.pages = text.pages[:whole]
        fork.nodes, fork.columns = text.nodes[:whole], list(text.columns)
        if part:
            try:
                fork.pages.append(self._take(fork))
            except PagesExhausted:
                self._release(fork)
                raise
            self._store.copy(text.pages[whole], fork.pages[whole], part)
        return fork

    def close(self, text: PagedText, keep: bool) -> None:
        """Gives a text's pages back; see `Runner.close`."""
        if not text.is_open:
            return
        whole, part = divmod(len(text.columns), PAGE_SIZE)
        if keep and part and text.epoch == self.epoch:
            before = text.nodes[-1] if text.nodes else None
            self.book.keep(text.kind, before, tuple(text.columns[-part:]), text.pages[whole])
        self._release(text)

    def forget(self) -> None:
        """Lets no text begin with the columns that there are."""
        self.epoch += 1
        self.book.forget()

    def _begin_with(
        self, text: PagedText, nodes: list[Node], rest: tuple[Node, int] | None
    ) -> None:
        """Gives a text the pages of `nodes` and a copy of `rest`, if there is room."""
        needed = self.book.cost(nodes) + (self.book.cost([rest[0]]) + 1 if rest else 0)
        if needed > self.book.num_free:
            return
        for node in nodes:
            self.book.hold(node.page)
        text.nodes, text.pages = nodes, [node.page for node in nodes]
        if rest is not None:
            node, part = rest
            self.book.hold(node.page)
            text.pages.append(self.book.take())
            self._store.copy(node.page, text.pages[-1], part)
            self.book.release(node.page)

    def _take(self, text: PagedText) -> int:
        if not text.promised:
            return self.book.take()
        text.promised -= 1
        return self.book.take_promised()

    def _share(self, text: PagedText, number: int) -> None:
        """Puts a full page into the tree, or takes the one in its place that is there."""
        block = tuple(text.columns[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])
        before = text.nodes[-1] if text.nodes else None
        page = text.pages[number]
        node = self.book.keep(text.kind, before, block, page)
        text.nodes.append(node)
        if node.page != page:
            self.book.hold(node.page)
            self.book.release(page)
            text.pages[number] = node.page
            text.pages_changed()

    def _release(self, text: PagedText) -> None:
        for page in reversed(text.pages):
            self.book.release(page)
        self.book.take_back(text.promised + sum(text.fork_promises))
        text.pages, text.nodes, text.promised, text.fork_promises = [], [], 0, []
        text.is_open = False
