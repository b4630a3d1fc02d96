"""Who holds which page: texts being decoded, the tree of beginnings, or nobody.

A page is free, held by some texts, kept in the tree, or both of the last two. One that only the
tree keeps is idle: it is given away when a page is needed and none is free, the longest unused
first, and always an end of a path. A text that holds a page in the tree holds all pages before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from glm_core.infer.paged.index import Block, Column, Node, PrefixIndex


class PagesExhausted(RuntimeError):
    """No page is left for a column."""


class PageBook:
    """The accounts of a pool of pages; it knows no tensors.

    Args:
        num_pages: pages there are, numbered from 0.
        page_size: columns of a page.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._holders = [0] * num_pages
        self._nodes: dict[int, Node] = {}
        """Of the pages in the tree."""
        self._num_idle = 0
        self._ends: OrderedDict[Node, None] = OrderedDict()
        """Idle pages that no other page follows, the longest unused first."""
        self._index = PrefixIndex(page_size)
        self._promised = 0

    @property
    def num_free(self) -> int:
        """Pages that may be taken or promised: idle ones count, promised ones do not."""
        return len(self._free) + self._num_idle - self._promised

    @property
    def num_cached(self) -> int:
        """Pages in the tree."""
        return len(self._nodes)

    def promise(self, count: int) -> bool:
        """Sets so many pages aside; False, and nothing is changed, where there are fewer."""
        if count > self.num_free:
            return False
        self._promised += count
        return True

    def take_back(self, count: int) -> None:
        """Undoes promises."""
        assert 0 <= count <= self._promised
        self._promised -= count

    def take(self) -> int:
        """Gives a page to a text.

        Raises:
            PagesExhausted: none is free, but for promised ones.
        """
        if self.num_free <= 0:
            raise PagesExhausted(
                f"the paged KV cache of {self.num_pages} pages is full: serve fewer texts at once, "
                "or give the cache more memory"
            )
        if not self._free:
            self._evict()
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def take_promised(self) -> int:
        """Gives one of the pages that were promised to a text."""
        self.take_back(1)
        return self.take()

    def hold(self, page: int) -> None:
        """Counts one more text that holds a page of the tree or of another text."""
        self._holders[page] += 1
        if self._holders[page] == 1:
            self._num_idle -= 1
            self._ends.pop(self._nodes[page], None)

    def cost(self, nodes: Sequence[Node]) -> int:
        """Returns how many pages fewer there are to be had when a text holds these."""
        return sum(self._holders[node.page] == 0 for node in nodes)

    def release(self, page: int) -> None:
        """Counts one text less that holds a page."""
        assert self._holders[page] > 0
        self._holders[page] -= 1
        if self._holders[page]:
            return
        node = self._nodes.get(page)
        if node is None:
            self._free.append(page)
            return
        self._num_idle += 1
        if not node.children:
            self._ends[node] = None

    def match(
        self, kind: Hashable, columns: Sequence[Column]
    ) -> tuple[list[Node], tuple[Node, int] | None]:
        """Finds the longest beginning of a text in the tree; see `PrefixIndex.match`."""
        return self._index.match(kind, columns)

    def keep(self, kind: Hashable, before: Node | None, block: Block, page: int) -> Node:
        """Puts a page that a text holds into the tree.

        Args:
            kind: of the text.
            before: the page before it, which the text holds; None at the beginning.

        Returns:
            The page's node, or that of another page with the same columns: then the text may hold
            that one in its place.
        """
        parent = self._index.root(kind) if before is None else before
        node = self._index.add(parent, block, page)
        if node.page == page:
            self._nodes[page] = node
        return node

    def forget(self) -> None:
        """Empties the tree; pages that texts hold stay theirs."""
        for page in self._nodes:
            if not self._holders[page]:
                self._free.append(page)
        self._nodes.clear()
        self._ends.clear()
        self._num_idle = 0
        self._index.clear()

    def _evict(self) -> None:
        node, _ = self._ends.popitem(last=False)
        self._index.remove(node)
        del self._nodes[node.page]
        self._num_idle -= 1
        self._free.append(node.page)
        before = node.parent
        if before is None or before.parent is None or before.children:
            return
        if not self._holders[before.page]:
            # Not used since its last follower was.
            self._ends[before] = None
            self._ends.move_to_end(before, last=False)
