"""The windows of files, searched by the words they share with a text.

Letters: F files, W windows, P pairs of a word and a window.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegeex.complete.context.walk import FoundFile
from codegeex.complete.context.windows import Window

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Spot:
    """Some lines of a file, and how much they are like what was asked for."""

    path: str
    begin: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class IndexedFile:
    """A file and its windows."""

    found: FoundFile
    folder: str
    windows: tuple[tuple[int, int], ...]
    """The first line of each, and the line behind its last."""
    sizes: tuple[int, ...]
    """Words of each."""
    words_P: Ids
    """Of one window after the other."""


class Words:
    """Numbers of words. One thread adds, any may look up."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def file(self, found: FoundFile, windows: Iterable[Window]) -> IndexedFile:
        """Returns a file as an index takes it."""
        windows = tuple(windows)
        numbers = self._numbers
        words = [
            numbers.setdefault(word, len(numbers)) for window in windows for word in window.words
        ]
        return IndexedFile(
            found,
            posixpath.dirname(found.path),
            tuple((window.begin, window.end) for window in windows),
            tuple(len(window.words) for window in windows),
            np.asarray(words, dtype=np.int32),
        )

    def known(self, words: Iterable[str]) -> list[int]:
        """Returns the numbers of those words that have one."""
        return [self._numbers[word] for word in words if word in self._numbers]


class WindowIndex:
    """An index of some files; never changed, so that any thread may search it.

    Args:
        files: by path.
    """

    def __init__(self, files: Mapping[str, IndexedFile]) -> None:
        self.files = files
        self._windows = [window for file in files.values() for window in file.windows]
        self._paths = list(files)
        counts = [len(file.windows) for file in files.values()]
        self._owners_W = np.repeat(np.arange(len(counts)), counts)
        sizes = [size for file in files.values() for size in file.sizes]
        self._sizes_W = np.asarray(sizes, dtype=np.int64)
        none = np.zeros(0, dtype=np.int32)
        words_P = np.concatenate([none, *(file.words_P for file in files.values())])
        order = np.argsort(words_P, kind="stable")
        self._windows_P = np.repeat(np.arange(len(sizes)), self._sizes_W)[order]
        self._words_P = words_P[order]

    def search(
        self, words: Sequence[int], num_words: int, weights: Sequence[float], most: int
    ) -> list[Spot]:
        """Returns the windows that are most like a text by the Jaccard index, best first.

        Args:
            words: numbers of its words.
            num_words: of the text, those without a number too.
            weights: one for each of `files`: by how much its windows count.
            most: windows at most.
        """
        if not words or not self._windows:
            return []
        begins, ends = (
            np.searchsorted(self._words_P, np.asarray(words, dtype=np.int32), side)
            for side in ("left", "right")
        )
        postings = [self._windows_P[begin:end] for begin, end in zip(begins, ends, strict=True)]
        shared_W = np.bincount(np.concatenate(postings), minlength=len(self._windows))
        weights_W = np.asarray(weights, dtype=np.float64)[self._owners_W]
        scores_W = weights_W * shared_W / (num_words + self._sizes_W - shared_W)
        count = min(most, int((scores_W > 0).sum()))
        if not count:
            return []
        best = np.argpartition(-scores_W, count - 1)[:count].tolist()
        order = sorted(best, key=lambda index: (-scores_W[index], index))
        return [self._spot(index, float(scores_W[index])) for index in order]

    def _spot(self, index: int, score: float) -> Spot:
        return Spot(self._paths[self._owners_W[index]], *self._windows[index], score)
