"""The order of documents: repositories whole, folders whole, what is imported before its users.

A model that reads a stretch of the stream sees files that belong together, and reads a definition
before its use where imports tell so (DeepSeek-Coder's repository-level order, arXiv 2401.14196,
without leaving the folder).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from codegeex.data.read import Found


def packing_order(documents: Sequence[Found]) -> list[int]:
    """Indices of documents in the order in which they are written.

    Repositories stay in the order of their first documents, and so do the folders of each.
    """
    repositories: dict[str, dict[str, list[int]]] = {}
    for index, document in enumerate(documents):
        folder = posixpath.dirname(document.path)
        repositories.setdefault(document.repository, {}).setdefault(folder, []).append(index)
    return [
        index
        for folders in repositories.values()
        for members in folders.values()
        for index in _imports_first(members, documents)
    ]


def _imports_first(members: list[int], documents: Sequence[Found]) -> list[int]:
    """Members of one folder, each behind those that it imports; cycles are cut where they begin."""
    by_stem: dict[str, int] = {}
    for index in members:
        by_stem.setdefault(posixpath.splitext(documents[index].path)[0], index)
    order: list[int] = []
    seen: set[int] = set()
    for first in members:
        stack = [(first, False)]
        while stack:
            index, needs_are_done = stack.pop()
            if needs_are_done:
                order.append(index)
            elif index not in seen:
                seen.add(index)
                stack.append((index, True))
                needed = _needed(documents[index], by_stem)
                stack.extend((other, False) for other in reversed(needed) if other not in seen)
    return order


def _needed(document: Found, by_stem: dict[str, int]) -> list[int]:
    folder = posixpath.dirname(document.path)
    needed = []
    for name in document.imports:
        stem = posixpath.splitext(name)[0] if "/" not in name[-4:] else name
        for place in (posixpath.normpath(posixpath.join(folder, stem)), _tail(stem, folder)):
            if place in by_stem:
                needed.append(by_stem[place])
                break
    return needed


def _tail(name: str, folder: str) -> str:
    """An absolute import `pkg/a/b` seen from folder `src/pkg/a`: `src/pkg/a/b`."""
    package, _, last = name.rpartition("/")
    return posixpath.join(folder, last) if package and folder.endswith(package) else ""
