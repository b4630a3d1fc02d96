"""The files of a repository as they were when they were last looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from codegeex.complete.context.imports import PathTable
from codegeex.complete.context.index import IndexedFile, Spot, WindowIndex

_MOST_CHANGED = 50
"""Files that changed since the large index was made, before it is made anew."""
Weights = Callable[[Sequence[IndexedFile]], Sequence[float]]


@dataclass(frozen=True)
class Reading:
    """All files at one moment. When some change, only a small index is made anew."""

    files: Mapping[str, IndexedFile] = field(default_factory=dict)
    table: PathTable = field(default_factory=lambda: PathTable(()))
    large: WindowIndex = field(default_factory=lambda: WindowIndex({}))
    small: WindowIndex = field(default_factory=lambda: WindowIndex({}))
    """Of those that are not in the large one, or not as they are now."""

    def then(self, files: Mapping[str, IndexedFile]) -> Reading:
        """Returns what was read later."""
        table = self.table if files.keys() == self.files.keys() else PathTable(files)
        changed = {
            path: file for path, file in files.items() if self.large.files.get(path) is not file
        }
        if len(changed) > _MOST_CHANGED:
            return Reading(files, table, WindowIndex(files), WindowIndex({}))
        return Reading(files, table, self.large, WindowIndex(changed))

    def search(
        self, words: Sequence[int], num_words: int, weights: Weights, most: int
    ) -> list[Spot]:
        """As `WindowIndex.search`."""
        old = list(self.large.files.values())
        counts = [
            weight if self.files.get(file.found.path) is file else 0.0
            for file, weight in zip(old, weights(old), strict=True)
        ]
        found = self.large.search(words, num_words, counts, most)
        new = list(self.small.files.values())
        found += self.small.search(words, num_words, weights(new), most)
        return sorted(found, key=lambda spot: -spot.score)[:most]
