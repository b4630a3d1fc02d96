"""Which pages hold which columns: a tree of pages, in which a common beginning is stored once.

A column is told apart by its token and its place, because both are in its keys. A node is a page;
its children are the pages that may come after it. So a path from a root down is a text.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence

Column = tuple[int, int, int]
"""Token, position and block position."""
Block = tuple[Column, ...]
"""The columns of a page; fewer than it has room for only at the end of a text."""


class Node:
    """A page in the tree; a root has none."""

    __slots__ = ("block", "children", "kind", "order", "page", "parent")

    def __init__(self, parent: Node | None, block: Block, page: int, kind: Hashable = None) -> None:
        self.parent, self.block, self.page = parent, block, page
        self.kind = kind
        """Of a root: the kind of its texts."""
        self.children: dict[Block, Node] = {}
        self.order: list[Block] = []
        """The children's blocks, sorted: the one that a text agrees with longest is a neighbour
        of the place where the text would stand."""

    def longest_match(self, block: Block) -> tuple[Node, int] | None:
        """Returns the child that agrees with `block` longest, and in how many columns."""
        at = bisect_left(self.order, block)
        near = self.order[max(at - 1, 0) : at + 1]
        counts = [(_common(other, block), other) for other in near]
        count, other = max(counts, default=(0, ()))
        return (self.children[other], count) if count else None


class PrefixIndex:
    """The trees: one for each kind of text whose columns could be another's.

    Args:
        page_size: columns of a page.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._roots: dict[Hashable, Node] = {}

    def root(self, kind: Hashable) -> Node:
        """Returns the root of the texts of a kind, a new one where there is none."""
        return self._roots.setdefault(kind, Node(None, (), -1, kind))

    def match(
        self, kind: Hashable, columns: Sequence[Column]
    ) -> tuple[list[Node], tuple[Node, int] | None]:
        """Finds the longest beginning of a text that is stored.

        Returns:
            Nodes of whole pages from the first on; and a node whose page agrees with what comes
            next in so many columns, or None.
        """
        nodes: list[Node] = []
        node = self._roots.get(kind)
        while node is not None:
            begin = len(nodes) * self._page_size
            block = tuple(columns[begin : begin + self._page_size])
            child = node.children.get(block) if len(block) == self._page_size else None
            if child is None:
                return nodes, node.longest_match(block)
            nodes.append(child)
            node = child
        return nodes, None

    def add(self, parent: Node, block: Block, page: int) -> Node:
        """Puts a page behind `parent`; returns its node, or the one that has the block already."""
        node = parent.children.get(block)
        if node is None:
            node = parent.children[block] = Node(parent, block, page)
            insort(parent.order, block)
        return node

    def remove(self, leaf: Node) -> None:
        """Takes a node without children out of the tree, and a root that has none left with it."""
        parent = leaf.parent
        assert parent is not None and not leaf.children
        del parent.children[leaf.block]
        del parent.order[bisect_left(parent.order, leaf.block)]
        if parent.parent is None and not parent.children:
            del self._roots[parent.kind]

    def clear(self) -> None:
        """Forgets everything."""
        self._roots.clear()


def _common(first: Block, second: Block) -> int:
    """Returns how many columns two blocks have in common at their beginning."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
