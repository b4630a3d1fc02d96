"""The source files of a repository: never outside it, never what is hidden, ignored or huge."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from codegeex.complete.context.ignore import GITIGNORE, IgnoreRules
from codegeex.languages import language_of_path

_NO_CODE = frozenset(
    "markdown json yaml toml xml html css restructuredtext excel rmarkdown".split()
)
_NEVER = frozenset("__pycache__ node_modules bower_components venv env site-packages".split())
_NO_RULES = IgnoreRules()
_LONG_LINE = 300
"""Characters of a mean line: what has more was written by a program."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may help."""

    path: str
    """Relative to the root, with slashes."""
    language: str
    """Key of its language."""
    changed: int
    """Time of its last change, nanoseconds."""
    size: int


@dataclass(frozen=True, slots=True)
class _Listed:
    """A folder as it was when it was listed."""

    changed: int
    above: IgnoreRules
    """Of the folder that it is in."""
    ignored_since: int
    """Time of the last change of its .gitignore; 0 without one."""
    rules: IgnoreRules
    files: tuple[tuple[str, str], ...]
    """Path and language of each."""
    folders: tuple[str, ...]
    """With a slash at their ends."""


class SourceWalk:
    """Walks through a repository again and again; folders that did not change are not listed anew.

    Args:
        root: real path, without links.
        most: files at most.
        max_bytes: larger files are left out.
    """

    def __init__(self, root: str, most: int, max_bytes: int) -> None:
        self.root, self.most, self.max_bytes = root, most, max_bytes
        self._listed: dict[str, _Listed] = {}

    def files(self) -> Iterator[FoundFile]:
        """Yields the source files, the nearest to the root first."""
        count, before, self._listed = 0, self._listed, {}
        folders = deque([("", _NO_RULES)])
        while folders:
            folder, above = folders.popleft()
            listed = self._list(folder, above, before.get(folder))
            if listed is None:
                continue
            self._listed[folder] = listed
            folders.extend((below, listed.rules) for below in listed.folders)
            for path, language in listed.files:
                found = self._found(path, language)
                if found is not None:
                    if count == self.most:
                        return
                    count += 1
                    yield found

    def _list(self, folder: str, above: IgnoreRules, known: _Listed | None) -> _Listed | None:
        place = os.path.join(self.root, folder)
        changed, ignored_since = _changed(place), _changed(os.path.join(place, GITIGNORE))
        if not changed:
            return None
        if known is not None and (known.changed, known.ignored_since) == (changed, ignored_since):
            if known.above is above:
                return known
        rules = (
            above.below(folder, _text(os.path.join(place, GITIGNORE))) if ignored_since else above
        )
        files, folders = [], []
        for name, is_folder in _entries(place):
            path = folder + name
            if name.startswith(".") or rules.leaves_out(path, is_folder):
                continue
            language = None if is_folder else language_of_path(name)
            if is_folder and name not in _NEVER:
                folders.append(f"{path}/")
            elif language is not None and language.key not in _NO_CODE:
                files.append((path, language.key))
        return _Listed(changed, above, ignored_since, rules, tuple(files), tuple(folders))

    def _found(self, path: str, language: str) -> FoundFile | None:
        try:
            status = os.lstat(os.path.join(self.root, path))
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= self.max_bytes:
            return None
        return FoundFile(path, language, status.st_mtime_ns, status.st_size)


def read_source(root: str, path: str, max_bytes: int) -> str | None:
    """Returns the text of a file below the root; None if it is no code that people wrote."""
    place = os.path.normpath(os.path.join(root, path))
    if not place.startswith(root.rstrip(os.sep) + os.sep) or os.path.realpath(place) != place:
        return None  # it is elsewhere, or a link leads there
    try:
        with open(place, "rb") as file:
            data = file.read(max_bytes + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if len(data) > max_bytes or "\0" in text:
        return None
    return None if len(text) > _LONG_LINE * (text.count("\n") + 1) else text


def _entries(folder: str) -> list[tuple[str, bool]]:
    """Names, and whether each is a folder; a link is none."""
    try:
        with os.scandir(folder) as entries:
            return sorted((one.name, one.is_dir(follow_symlinks=False)) for one in entries)
    except OSError:
        return []  # gone, or not ours to read


def _changed(place: str) -> int:
    try:
        return os.lstat(place).st_mtime_ns
    except OSError:
        return 0


def _text(place: str) -> str:
    try:
        with open(place, encoding="utf-8", errors="replace") as file:
            return file.read(1_000_000)
    except OSError:
        return ""
