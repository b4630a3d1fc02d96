"""`installed-text`: English technical prose that any machine with Python already has.

Three kinds of documents, in a fixed order:

1. `pydoc_data.topics`: the language reference behind `help("for")`, one document per topic.
2. Docstrings of the standard library and of every installed distribution, read with `ast` and
   never imported: the module, class and function docstrings of one file are one document.
3. The description of every installed distribution (its README).

Folders of tests, vendored copies and this repository's own packages are left out.
Documents and paragraphs are deduplicated over the whole corpus by a hash of their words, the
first one stays, so no held-out paragraph is a verbatim copy of a training paragraph. Paragraphs
under 40 characters ("Returns", "-------") are headings rather than content and may repeat.
Held-out paragraphs that are mostly made of training text are removed too (`overlap.py`).

A document is held out by a hash of its *name* (its path under the folder it is installed in),
not of its contents: two versions of a package differ in contents but agree in names, so what one
machine holds out is never training text on another machine with a newer version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import platform
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

from glm_core.data.docstrings import (
    is_english_like,
    is_prose_like,
    paragraphs_of,
    read_description,
    read_docstrings,
)
from glm_core.data.documents import Document, split_of
from glm_core.data.overlap import without_overlap

logger = logging.getLogger(__name__)

RULES_VERSION = 1
"""Grows whenever the same packages would give other documents."""

HELDOUT_FRACTION = 0.01
MIN_DOCUMENT_CHARS = 200
MIN_UNIQUE_CHARS = 40
OWN_PACKAGES = frozenset(
    ["glm_core", "glm_kernels", "codegeex", "cogvlm", "relay_diffusion", "webglm"]
)
OWN_DISTRIBUTIONS = frozenset(["glm-lab"])
_SKIPPED_FOLDERS = frozenset(
    "tests test testing idle_test _vendor vendor _vendored vendored extern third_party lib2to3 "
    "site-packages dist-packages node_modules __pycache__".split()
)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class TextRoot:
    """A folder whose Python files and METADATA belong to the corpus."""

    label: str
    folder: Path


def stdlib_roots() -> list[TextRoot]:
    """The standard library alone."""
    return [TextRoot("stdlib", Path(sysconfig.get_paths()["stdlib"]))]


def default_roots() -> list[TextRoot]:
    """The standard library and the folders where this Python's distributions are installed."""
    paths = sysconfig.get_paths()
    roots = stdlib_roots()
    for key in ("purelib", "platlib"):
        folder = Path(paths[key])
        if folder.is_dir() and all(folder != root.folder for root in roots):
            roots.append(TextRoot("site-packages", folder))
    return roots


def installed_documents(
    roots: Sequence[TextRoot] | None = None,
    *,
    topics: bool = True,
    workers: int = 1,
    heldout_fraction: float = HELDOUT_FRACTION,
) -> Iterator[Document]:
    """All documents of the corpus, cleaned and deduplicated, in a fixed order.

    Args:
        roots: Folders to read; by default those of this Python.
        topics: Whether to begin with `pydoc_data.topics`.
        workers: Processes that parse files.
        heldout_fraction: Share of documents that are held out.
    """
    keep = _Deduplicator()
    documents = []
    for name, text in _raw_documents(default_roots() if roots is None else roots, topics, workers):
        cleaned = keep(text)
        if cleaned:
            documents.append(Document(name, cleaned, split_of(name, heldout_fraction)))
    return without_overlap(documents, MIN_DOCUMENT_CHARS)


def python_version() -> str:
    """Version of the running Python, for example "3.11.7"."""
    return platform.python_version()


@lru_cache(maxsize=1)
def installed_versions() -> dict[str, str]:
    """Version of every installed distribution but our own, by name."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name.lower() not in OWN_DISTRIBUTIONS:
            found[name] = distribution.version
    return dict(sorted(found.items()))


class _Deduplicator:
    """Removes documents and paragraphs that were seen before, and what is no prose."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, text: str) -> str:
        """The paragraphs of `text` to keep, joined; empty when too little is left."""
        if not is_english_like(text):
            return ""
        kept = [part for part in paragraphs_of(text) if is_prose_like(part) and self._new(part)]
        joined = "\n\n".join(kept)
        if sum(len(part) for part in kept if len(part) >= MIN_UNIQUE_CHARS) < MIN_DOCUMENT_CHARS:
            return ""
        return joined if self._new(joined) or len(kept) == 1 else ""

    def _new(self, text: str) -> bool:
        normal = " ".join(_WORD.findall(text)).lower()
        if len(normal) < MIN_UNIQUE_CHARS:
            return True
        key = hashlib.blake2b(normal.encode("utf-8", errors="replace"), digest_size=12).digest()
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def _raw_documents(
    roots: Sequence[TextRoot], topics: bool, workers: int
) -> Iterator[tuple[str, str]]:
    if topics:
        yield from _topic_documents()
    for root in roots:
        files = _python_files(root.folder)
        yield from _named(root, files, _parallel(read_docstrings, files, workers))
        descriptions = sorted(root.folder.glob("*.dist-info/METADATA"))
        descriptions = [path for path in descriptions if not _is_own(path)]
        names = [f"{path.parent.name.split('-')[0].lower()}.dist-info" for path in descriptions]
        for name, path in zip(names, descriptions, strict=True):
            yield f"{root.label}/{name}", read_description(path)


def _topic_documents() -> Iterator[tuple[str, str]]:
    from pydoc_data import topics

    for name, text in sorted(topics.topics.items()):
        yield f"stdlib/pydoc_data/topics#{name}", text


def _named(
    root: TextRoot, files: Sequence[Path], texts: Iterator[str]
) -> Iterator[tuple[str, str]]:
    for path, text in zip(files, texts, strict=True):
        if text:
            yield f"{root.label}/{path.relative_to(root.folder).as_posix()}", text


def _is_own(metadata: Path) -> bool:
    return metadata.parent.name.split("-")[0].replace("_", "-").lower() in OWN_DISTRIBUTIONS


def _python_files(folder: Path) -> list[Path]:
    """Python files under `folder` in sorted order, without tests and vendored copies."""
    found: list[Path] = []
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except PermissionError:
        logger.info("leaving out %s: it cannot be read", folder)
        return found
    for entry in entries:
        if entry.is_dir():
            hidden = entry.name.startswith((".", "test_")) or entry.name.endswith("_tests")
            if hidden or entry.name in _SKIPPED_FOLDERS or entry.name in OWN_PACKAGES:
                continue
            found.extend(_python_files(entry) if not entry.is_symlink() else [])
        elif entry.suffix == ".py" and not entry.name.startswith("test_"):
            found.append(entry)
    return found


def _parallel(
    function: Callable[[Path], str], paths: Sequence[Path], workers: int
) -> Iterator[str]:
    """`map(function, paths)` in order, over processes where the platform can fork them."""
    if workers <= 1 or len(paths) < 64 or "fork" not in get_all_start_methods():
        yield from map(function, paths)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        yield from pool.map(function, paths, chunksize=32)
