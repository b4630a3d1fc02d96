"""References for a hole from the other files of its repository, within a budget of tokens."""

from __future__ import annotations

import os
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from codegeex.complete.context.declared import DeclaredFiles
from codegeex.complete.context.imports import imported
from codegeex.complete.context.index import IndexedFile, Spot, Words
from codegeex.complete.context.reading import Reading
from codegeex.complete.context.walk import SourceWalk, read_source
from codegeex.complete.context.windows import Window, likeness, windows_of, words_of
from codegeex.hole import Hole, Reference
from codegeex.languages import LANGUAGES, Language, language_of_path

_QUERY_BEFORE, _QUERY_BEHIND = 2000, 400
"""Characters around the cursor that others are compared with."""
_LEAST = 0.05
"""Likeness below which a snippet is of no use."""
_SAME_FOLDER, _RECENT, _OTHER_LANGUAGE = 1.2, 1.3, 0.5
"""By how much a snippet counts more, or less."""
_MOST_SPOTS = 24
_MOST_IMPORTED = 12
_MOST_RECENT = 20
_PAUSE_S = 0.002
"""After each file that is read in the background: somebody may be waiting for a token."""
_FAMILIES = ({"c", "c++", "cuda"}, {"javascript", "typescript", "vue"}, {"java", "kotlin", "scala"})


@dataclass(frozen=True)
class _Scored:
    score: float
    reference: Reference


class RepositoryContext:
    """Knows the source files of a repository, and finds what helps at a cursor.

    A thread reads the files, and looks for changes while somebody asks; what it has not read yet is
    left out. Nothing outside the root is ever read, and nothing that is hidden, ignored by git,
    binary or huge. Every method may be called from any thread.

    Args:
        root: of the repository.
        max_files: read at most, those nearest to the root.
        max_bytes: of a file.
        every_s: seconds after which files are looked at again, at the earliest.

    Raises:
        ValueError: the root is no folder.
    """

    def __init__(
        self,
        root: Path | str,
        max_files: int = 5000,
        max_bytes: int = 200_000,
        every_s: float = 3.0,
    ) -> None:
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise ValueError(f"{root} is no folder: give the root of the repository")
        self._max_bytes, self._every_s = max_bytes, every_s
        self._walk = SourceWalk(self.root, max_files, max_bytes)
        self._words = Words()
        self._reading = Reading()
        self._recent: OrderedDict[str, str | None] = OrderedDict()
        self._windows: dict[str, tuple[Window, ...]] = {}
        """Of recent files whose text is not the stored one."""
        self._declared = DeclaredFiles()
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._wanted, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, path: str, text: str | None = None) -> None:
        """Says that a file is being looked at.

        Args:
            path: relative to the root, or absolute.
            text: of the file, where it is not the stored one.
        """
        path = self.path_of(path)
        if not path:
            return
        windows = None if text is None else tuple(windows_of(text[: self._max_bytes]))
        with self._lock:
            self._recent[path] = text
            self._recent.move_to_end(path)
            self._windows.pop(path, None)
            if windows is not None:
                self._windows[path] = windows
            if len(self._recent) > _MOST_RECENT:
                oldest, _ = self._recent.popitem(last=False)
                self._windows.pop(oldest, None)

    def path_of(self, path: str) -> str:
        """Returns a path relative to the root, with slashes; empty if it is not below it."""
        place = os.path.normpath(os.path.join(self.root, path)) if path else self.root
        inside = place.startswith(self.root.rstrip(os.sep) + os.sep)
        return os.path.relpath(place, self.root).replace(os.sep, "/") if inside else ""

    def references(
        self, hole: Hole, budget: int, count: Callable[[str], int] | None = None
    ) -> tuple[Reference, ...]:
        """Returns what helps to complete a hole, the most useful last.

        Args:
            hole: its path is that of its file.
            budget: tokens of all references together.
            count: how many tokens a text has; without it that is estimated.
        """
        self.start()
        if budget <= 0:
            return ()
        with self._lock:
            recent, windows = dict(self._recent), dict(self._windows)
        around = hole.prefix[-_QUERY_BEFORE:] + "\n" + hole.suffix[:_QUERY_BEHIND]
        query = _Query(
            self.path_of(hole.path),
            LANGUAGES.get(hole.language) or language_of_path(hole.path),
            words_of(around),
            recent,
        )
        reading = self._reading
        scored = [
            *self._declarations(query, hole, reading),
            *self._unsaved(query, windows),
            *self._stored(query, reading),
        ]
        scored.sort(key=lambda one: -one.score)
        return _fitting(scored, budget, count or _estimate)

    def refresh(self, pause_s: float = 0.0) -> None:
        """Looks at all files now, and reads those that changed.

        Args:
            pause_s: seconds to wait after each file that is read.
        """
        with self._refreshing:
            old, files = self._reading.files, {}
            for found in self._walk.files():
                file = old.get(found.path)
                if file is None or file.found != found:
                    text = self._text_of(found.path)
                    file = self._words.file(found, () if text is None else windows_of(text))
                    if self._closed.wait(pause_s) if pause_s else self._closed.is_set():
                        return
                files[found.path] = file
            if files != old:
                self._reading = self._reading.then(files)

    def start(self) -> None:
        """Lets the files be read, and changes be looked for, in the background."""
        self._wanted.set()
        if self._thread is None and not self._closed.is_set():
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="repository-context", daemon=True
                    )
                    self._thread.start()

    def close(self) -> None:
        """Stops the thread; more calls do nothing."""
        self._closed.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait()
            self._wanted.clear()
            self.refresh(_PAUSE_S)
            self._closed.wait(self._every_s)

    def _text_of(self, path: str) -> str | None:
        return read_source(self.root, path, self._max_bytes)

    def _stored(self, query: _Query, reading: Reading) -> Iterator[_Scored]:
        """Snippets of the files as they are stored."""
        words = self._words.known(query.words)
        spots = reading.search(words, len(query.words), query.weights, _MOST_SPOTS)
        for spot in _apart(spots):
            text = self._text_of(spot.path)
            if text is not None:
                yield _snippet(spot, text)

    def _unsaved(self, query: _Query, windows: dict[str, tuple[Window, ...]]) -> Iterator[_Scored]:
        """Snippets of the files as somebody is changing them."""
        for path, of_file in windows.items():
            text = query.recent.get(path)
            if path == query.path or text is None:
                continue
            weight = query.weight(path, posixpath.dirname(path), _key_of(path))
            spots = [
                Spot(path, one.begin, one.end, likeness(query.words, one.words) * weight)
                for one in of_file
            ]
            spots.sort(key=lambda spot: -spot.score)
            yield from (_snippet(spot, text) for spot in _apart(spots))

    def _declarations(self, query: _Query, hole: Hole, reading: Reading) -> Iterator[_Scored]:
        """What the files declare that the hole's file imports."""
        paths = imported(hole.prefix, query.path, query.language, reading.table)
        for path in paths[:_MOST_IMPORTED]:
            file = reading.files.get(path)
            if file is None:
                continue
            text, share = self._declared.text(file.found, query.words, self._text_of)
            if text:
                yield _Scored(share, Reference(path=path, text=text))


@dataclass(frozen=True)
class _Query:
    """What is looked for."""

    path: str
    language: Language | None
    words: frozenset[str]
    recent: dict[str, str | None]

    @cached_property
    def _folder(self) -> str:
        return posixpath.dirname(self.path)

    @cached_property
    def _family(self) -> Collection[str]:
        return _family(self.language)

    def weights(self, files: Sequence[IndexedFile]) -> list[float]:
        """Returns by how much snippets of stored files count; 0 for those that are not stored so,
        and for the hole's own."""
        return [
            0.0
            if self.recent.get(file.found.path) is not None
            else self.weight(file.found.path, file.folder, file.found.language)
            for file in files
        ]

    def weight(self, path: str, folder: str, language: str) -> float:
        """Returns by how much snippets of a file count."""
        if path == self.path:
            return 0.0
        weight = _RECENT if path in self.recent else 1.0
        weight *= _SAME_FOLDER if folder == self._folder else 1.0
        return weight if not self._family or language in self._family else weight * _OTHER_LANGUAGE


def _family(language: Language | None) -> Collection[str]:
    """Keys of the languages that are used together with one."""
    if language is None:
        return ()
    return next((family for family in _FAMILIES if language.key in family), {language.key})


def _key_of(path: str) -> str:
    language = language_of_path(path)
    return language.key if language else ""


def _apart(spots: Sequence[Spot]) -> Iterator[Spot]:
    """Yields spots that are like enough and do not overlap, two of a file at most."""
    taken: dict[str, list[Spot]] = {}
    for spot in spots:
        of_file = taken.setdefault(spot.path, [])
        overlaps = any(spot.begin < one.end and one.begin < spot.end for one in of_file)
        if spot.score >= _LEAST and not overlaps and len(of_file) < 2:
            of_file.append(spot)
            yield spot


def _snippet(spot: Spot, text: str) -> _Scored:
    lines = text.splitlines()[spot.begin : spot.end]
    return _Scored(spot.score, Reference(path=spot.path, text="\n".join(lines).strip("\n") + "\n"))


def _fitting(
    scored: Sequence[_Scored], budget: int, count: Callable[[str], int]
) -> tuple[Reference, ...]:
    """Returns the best that fit, the best one last."""
    taken: list[Reference] = []
    for one in scored:
        cost = count(one.reference.path) + count(one.reference.text)
        if cost <= budget and one.reference not in taken:
            taken.append(one.reference)
            budget -= cost
    return tuple(reversed(taken))


def _estimate(text: str) -> int:
    return len(text) // 3 + 1
