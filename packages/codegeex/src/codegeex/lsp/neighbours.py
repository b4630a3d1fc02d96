"""What the other files of a workspace say about a place in one of them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from codegeex.complete.context import RepositoryContext
from codegeex.hole import Hole, Reference
from codegeex.lsp.documents import Document, Documents

_NEAR = 10
"""Lines from the place for which references were found; there they stay as they are."""
_FRESH_S = 20.0
"""Seconds for which they do."""
_Texts = dict[str, str | None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Kept:
    """References, and where and when they were found."""

    document: Document
    line: int
    found_at: float
    references: tuple[Reference, ...]

    def serves(self, document: Document, line: int) -> bool:
        is_near = document is self.document and abs(line - self.line) <= _NEAR
        return is_near and time.monotonic() - self.found_at < _FRESH_S


class Neighbours:
    """The repositories of a workspace, with the open documents as they are in the editor.

    References stand at the beginning of a prompt: if they changed with every letter that is typed,
    the whole prompt would have to be read again for it. So they stay for a while at one place.

    Args:
        documents: the open ones.
        budget: tokens of all references together.
        count: how many tokens a text has.
    """

    def __init__(self, documents: Documents, budget: int, count: Callable[[str], int]) -> None:
        self._documents, self._budget, self._count = documents, budget, count
        self._repositories: dict[str, RepositoryContext | None] = {}
        self._told: dict[str, int] = {}
        """Paths of the documents that the repositories know, and which revisions."""
        self._kept: _Kept | None = None

    async def references(
        self, hole: Hole, document: Document, line: int, root: str
    ) -> tuple[Reference, ...]:
        """Returns what helps to complete a hole, the most useful last.

        Args:
            hole: its path is relative to the root.
            document: that it is in.
            line: of the cursor.
            root: of the repository; empty if there is none.
        """
        repository = self._repository(root) if root else None
        if repository is None:
            return ()
        if self._kept is None or not self._kept.serves(document, line):
            news = self._news()
            found = await asyncio.to_thread(self._find, repository, hole, news)
            self._kept = _Kept(document, line, time.monotonic(), found)
        return self._kept.references

    def close(self) -> None:
        """Stops the threads that look after the files."""
        for repository in self._repositories.values():
            if repository is not None:
                repository.close()

    def _repository(self, root: str) -> RepositoryContext | None:
        if root not in self._repositories:
            try:
                self._repositories[root] = RepositoryContext(root)
            except ValueError as error:  # the editor names folders that are not on this machine
                logger.warning("no other files are looked at: %s", error)
                self._repositories[root] = None
        return self._repositories[root]

    def _news(self) -> _Texts:
        """Returns texts of documents that changed; None for those that are closed now."""
        opened = {document.path: document for document in self._documents if document.path}
        news: _Texts = {path: None for path in self._told if path not in opened}
        news |= {
            path: document.text
            for path, document in opened.items()
            if self._told.get(path) != document.revision
        }
        self._told = {path: document.revision for path, document in opened.items()}
        return news

    def _find(
        self, repository: RepositoryContext, hole: Hole, news: _Texts
    ) -> tuple[Reference, ...]:
        for path, text in news.items():
            for root, one in tuple(self._repositories.items()):
                if one is not None and path.startswith(os.path.join(root, "")):
                    one.note(os.path.relpath(path, root), text)  # a root may be a link
        return repository.references(hole, self._budget, self._count)
