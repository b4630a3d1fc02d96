"""Declarations of files, kept while the files do not change, and the part of them that is used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from codegeex.complete.context.declarations import Declaration, declarations_of
from codegeex.complete.context.walk import FoundFile

_MOST_KEPT = 500
_MOST_TAKEN = 16
"""Declarations of one file."""
_UNUSED, _USED = 0.1, 0.5
"""What declarations count, on the scale of likeness: of names that are not and that are used."""
Group = list[Declaration]


class DeclaredFiles:
    """Declarations by file. For any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[FoundFile, tuple[Declaration, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def text(
        self, file: FoundFile, words: frozenset[str], read: Callable[[str], str | None]
    ) -> tuple[str, float]:
        """Returns the declarations of a file that words name, or else its first ones; and a score.

        Args:
            read: gives a file's text by its path.
        """
        with self._lock:
            known = self._known.get(file)
        if known is None:
            known = _parsed(file, read(file.path) or "")
            with self._lock:
                self._known[file] = known
                if len(self._known) > _MOST_KEPT:
                    self._known.popitem(last=False)
        groups = list(_groups(known))
        used = [group for group in groups if any(one.name in words for one in group)]
        chosen = [one for group in used or groups for one in _most_used(group, words)]
        lines = ["    " * one.depth + one.signature for one in chosen[:_MOST_TAKEN]]
        return "".join(f"{line}\n" for line in lines), _USED if used else _UNUSED


def _parsed(file: FoundFile, text: str) -> tuple[Declaration, ...]:
    key = file.language
    if file.path.endswith((".tsx", ".jsx")):
        key = "tsx"
    elif file.path.endswith(".h"):
        key = "c++"  # which reads C too
    return declarations_of(text, key)


def _groups(declared: Sequence[Declaration]) -> Iterator[Group]:
    """Yields what stands at the top of a file, each with what is in it."""
    group: Group = []
    for one in declared:
        if one.depth == 0 and group:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _most_used(group: Group, words: frozenset[str]) -> Group:
    """The head of a group and its members: those that are used, if the head itself is not."""
    head, *members = group
    if head.name in words:
        return group
    return [head, *(one for one in members if one.name in words)] if members else [head]
