"""Files of folders: a walk in a fixed order that reads nothing.

A repository is the nearest folder with .git, or else a folder of the source's first level. What
a file's name, size and place tell is decided here, so that a large file costs one `stat`. In a
git repository the files that git ignores are left out.
"""

from __future__ import annotations

import logging
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codegeex.data.config import PrepareConfig
from codegeex.data.filters import of_size
from codegeex.data.reasons import Reason, Tally
from codegeex.languages import language_of_path
from glm_core.tokenizer.byte_bpe import valid_utf8

logger = logging.getLogger(__name__)

RECORDS = (".jsonl", ".jsonl.gz")
MARKUP = frozenset(
    "markdown json yaml toml xml html css tex restructuredtext xslt rmarkdown excel".split()
)
"""Languages of text and data: read only when they are asked for."""
_NEVER = frozenset("__pycache__ node_modules bower_components venv env site-packages".split())
_VENDORED = frozenset(
    "_vendor vendor _vendored vendored extern externals third_party third-party 3rdparty".split()
)
_TESTS = frozenset("test tests testing testdata test_data __tests__ spec specs idle_test".split())
_GIT_SECONDS = 60


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
    """Source files under a folder that are worth reading; the others are counted in `skipped`.

    Args:
        label: the repository's name where there is no folder for it.
        licence: what is known of all of them.
        is_repository: whether the whole folder is one repository.
    """
    start = _Folder(str(folder), label, "", "", is_repository, None)
    yield from _Walk(config, skipped, licence).folder(start)


def record_files(folder: Path, label: str) -> list[SourceFile]:
    """The .jsonl and .jsonl.gz files under a folder, in the order of their paths."""
    found = sorted(path for path in folder.rglob("*.jsonl*") if path.name.endswith(RECORDS))
    return [
        SourceFile(
            path=str(path),
            name=valid_utf8(path.relative_to(folder).as_posix()),
            repository=valid_utf8(label),
            size=path.stat().st_size,
            changed=path.stat().st_mtime_ns,
        )
        for path in found
        if path.is_file()
    ]


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
    is_code = not name.endswith(RECORDS)
    reason = of_name(place or name, key, config) if is_code else None
    reason = reason or (of_size(status.st_size, config) if is_code else None)
    if reason:
        skipped.add(reason, status.st_size)
        return None
    return SourceFile(
        path=path,
        name=valid_utf8(name),
        repository=valid_utf8(repository),
        size=status.st_size,
        changed=status.st_mtime_ns,
        language=key,
        licence=licence,
    )


def of_name(name: str, language: str, config: PrepareConfig) -> Reason | None:
    """What a path and its language tell.

    Args:
        name: path with slashes.
        language: key of the language; empty if it is unknown.
    """
    if not language:
        return Reason.unknown_language
    if language not in config.languages if config.languages else language in MARKUP:
        return Reason.other_language
    if not config.tests and is_test(name):
        return Reason.test
    if not config.vendored and not _VENDORED.isdisjoint(name.lower().split("/")[:-1]):
        return Reason.vendored
    return None


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


@dataclass(frozen=True)
class _Folder:
    path: str
    repository: str
    prefix: str
    """Its path in the repository, "" or with a slash at its end."""
    place: str
    """The same in the source."""
    inside: bool
    """Whether folders below belong to the repository."""
    tracked: frozenset[str] | None
    """Paths that git does not ignore, from the repository's folder on; None without git."""

    def below(self, name: str) -> _Folder:
        path, place = os.path.join(self.path, name), f"{self.place}{name}/"
        if self.inside:
            prefix = f"{self.prefix}{name}/"
            return _Folder(path, self.repository, prefix, place, True, self.tracked)
        return _Folder(path, f"{self.repository}/{name}", "", place, True, None)

    def as_repository(self) -> _Folder:
        """The same folder where it holds .git."""
        name = f"{self.repository}/{self.prefix}".rstrip("/")
        return _Folder(self.path, name, "", self.place, True, _not_ignored(self.path))


@dataclass(frozen=True)
class _Walk:
    config: PrepareConfig
    skipped: Tally
    licence: str

    def folder(self, folder: _Folder) -> Iterator[SourceFile]:
        """Files first, then folders, each in the order of their names."""
        try:
            with os.scandir(folder.path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            self.skipped.add(Reason.unreadable, 0)
            return
        if any(entry.name == ".git" for entry in entries):
            folder = folder.as_repository()
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                yield from self._file(entry, folder)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                if entry.name not in _NEVER:
                    yield from self.folder(folder.below(entry.name))

    def _file(self, entry: os.DirEntry[str], folder: _Folder) -> Iterator[SourceFile]:
        name = folder.prefix + entry.name
        if folder.tracked is not None and name not in folder.tracked:
            self.skipped.add(Reason.ignored, entry.stat(follow_symlinks=False).st_size)
            return
        if name.endswith(RECORDS):
            self.skipped.add(Reason.unknown_language, entry.stat(follow_symlinks=False).st_size)
            return
        place = folder.place + entry.name
        file = entry_file(
            entry.path,
            name,
            folder.repository,
            self.config,
            self.skipped,
            licence=self.licence,
            place=place,
        )
        if file:
            yield file


def _not_ignored(folder: str) -> frozenset[str] | None:
    """Files of a git repository that git does not ignore; None where git cannot tell."""
    command = ["git", "-C", folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        run = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        logger.info("git cannot tell which files of %s it ignores (%s)", folder, error)
        return None
    return frozenset(os.fsdecode(name) for name in run.stdout.split(b"\0") if name)
