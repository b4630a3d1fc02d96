"""Files of folders: a walk in a fixed order that reads nothing.

A repository is the nearest folder with .git, or else a folder of the source's first level. What
a file's name, size and place tell is decided here, so that a large file costs one `stat`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codegeex.data.config import PrepareConfig
from codegeex.data.filters import of_size
from codegeex.data.reasons import Reason, Tally
from codegeex.languages import language_of_path

RECORDS = (".jsonl", ".jsonl.gz")
MARKUP = frozenset(
    "markdown json yaml toml xml html css tex restructuredtext xslt rmarkdown excel".split()
)
"""Languages of text and data: read only when they are asked for."""
_NEVER = frozenset("__pycache__ node_modules bower_components venv env site-packages".split())
_VENDORED = frozenset(
    "_vendor vendor _vendored vendored extern externals third_party third-party thirdparty "
    "3rdparty".split()
)
_TESTS = frozenset("test tests testing testdata test_data __tests__ spec specs idle_test".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file to read."""

    path: str
    """Where it lies."""
    name: str
    """Its path inside its repository, with slashes."""
    repository: str
    size: int
    changed: int
    """Time of the last change, nanoseconds."""
    language: str = ""
    licence: str = ""

    @property
    def holds_records(self) -> bool:
        """Whether it is .jsonl: many documents."""
        return self.path.endswith(RECORDS)


def walk(
    folder: Path,
    label: str,
    config: PrepareConfig,
    skipped: Tally,
    *,
    licence: str = "",
    is_repository: bool = False,
) -> Iterator[SourceFile]:
    """Files under a folder that are worth reading; the others are counted in `skipped`.

    Args:
        label: the repository's name where there is no folder for it.
        licence: what is known of all of them.
        is_repository: whether the whole folder is one repository.
    """
    walk = _Walk(config, skipped, licence)
    yield from walk.folder(str(folder), label, "", "", is_repository)


def entry_file(
    path: str,
    name: str,
    repository: str,
    config: PrepareConfig,
    skipped: Tally,
    *,
    licence: str = "",
    place: str = "",
) -> SourceFile | None:
    """A single file to read, or None after it was counted in `skipped`.

    Args:
        place: path inside the source, if it is longer than `name`: tells tests.
    """
    try:
        status = os.stat(path)
    except OSError:
        skipped.add(Reason.unreadable, 0)
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    language = language_of_path(name)
    key = language.key if language else ""
    reason = None if name.endswith(RECORDS) else _reason(key, place or name, status.st_size, config)
    if reason:
        skipped.add(reason, status.st_size)
        return None
    return SourceFile(
        path=path,
        name=name,
        repository=repository,
        size=status.st_size,
        changed=status.st_mtime_ns,
        language=key,
        licence=licence,
    )


def is_test(name: str) -> bool:
    """Whether a path is that of a test, by the habits of the common languages."""
    *folders, last = name.lower().split("/")
    stem = last.partition(".")[0]
    return (
        any(folder in _TESTS or folder.endswith("_tests") for folder in folders)
        or stem.startswith("test_")
        or stem.endswith(("_test", "_tests", "_spec"))
        or ".test." in last
        or ".spec." in last
        or stem == "conftest"
    )


def _reason(language: str, name: str, size: int, config: PrepareConfig) -> Reason | None:
    if not language:
        return Reason.unknown_language
    if language not in config.languages if config.languages else language in MARKUP:
        return Reason.other_language
    if not config.tests and is_test(name):
        return Reason.test
    if not config.vendored and not _VENDORED.isdisjoint(name.lower().split("/")[:-1]):
        return Reason.vendored
    return of_size(size, config)


@dataclass(frozen=True)
class _Walk:
    config: PrepareConfig
    skipped: Tally
    licence: str

    def folder(
        self, path: str, repository: str, prefix: str, place: str, inside: bool
    ) -> Iterator[SourceFile]:
        """Files first, then folders, each in the order of their names.

        Args:
            prefix: path of the folder in its repository, "" or with a slash at its end.
            place: the same in the source.
            inside: whether folders below belong to `repository`.
        """
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            self.skipped.add(Reason.unreadable, 0)
            return
        if prefix and any(entry.name == ".git" for entry in entries):
            repository, prefix = f"{repository}/{prefix.rstrip('/')}", ""
        inside = inside or any(entry.name == ".git" for entry in entries)
        folders = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry)
            elif not entry.is_symlink() and not entry.name.startswith("."):
                file = self._file(entry, repository, prefix, place)
                if file:
                    yield file
        for entry in folders:
            if entry.name.startswith(".") or entry.name in _NEVER:
                continue
            below = f"{place}{entry.name}/"
            if inside:
                yield from self.folder(
                    entry.path, repository, f"{prefix}{entry.name}/", below, True
                )
            else:
                yield from self.folder(entry.path, f"{repository}/{entry.name}", "", below, True)

    def _file(
        self, entry: os.DirEntry[str], repository: str, prefix: str, place: str
    ) -> SourceFile | None:
        return entry_file(
            entry.path,
            prefix + entry.name,
            repository,
            self.config,
            self.skipped,
            licence=self.licence,
            place=place + entry.name,
        )
