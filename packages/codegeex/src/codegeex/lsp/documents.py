"""The files that an editor has open, as they are there and not on the disk."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lsprotocol import types
from pygls.uris import to_fs_path

from codegeex.languages import find_language, language_of_path
from codegeex.lsp.positions import UTF16, column_of, index_of

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
"""The protocol's lines end here and nowhere else: not at form feeds, as those of Python do."""
_REVISIONS = itertools.count(1)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Cursor:
    """A place in a document."""

    prefix: str
    """The text before it."""
    suffix: str
    """The text behind it."""
    position: types.Position
    """In the editor's units, and never inside a character or beyond its line."""


class Document:
    """One open file.

    Args:
        uri: its name in the protocol.
        text: all of it.
        language_id: what the editor takes it for.
        encoding: what columns count.
    """

    def __init__(self, uri: str, text: str, language_id: str = "", encoding: str = UTF16) -> None:
        self.uri = uri
        self.path = path_of(uri)
        """Absolute; empty for what has no name yet."""
        self.language = _language(language_id, self.path)
        """A key of `LANGUAGES`; empty where it is unknown."""
        self.revision = next(_REVISIONS)
        """Another one after each change."""
        self._encoding = encoding
        self._lines = _lines(text)

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def change(self, text: str, span: types.Range | None = None) -> None:
        """Puts a text in place of a part of the document, or of all of it.

        Raises:
            ValueError: the part is not in the document.
        """
        self.revision = next(_REVISIONS)
        if span is None:
            self._lines = _lines(text)
            return
        first, last = span.start.line, span.end.line
        (head, _), (_, tail) = self._split(span.start), self._split(span.end)
        if (last, span.end.character) < (first, span.start.character):
            raise ValueError(f"the range {span} ends before it begins")
        if 0 < first <= len(self._lines) and self._lines[first - 1].endswith("\r"):
            first -= 1  # with a LF behind it, its line would end later
            head = self._lines[first] + head
        lines = _lines(head + text + tail)
        if last + 1 < len(self._lines):
            lines.pop()  # what is behind the last end of a line begins the next one
        self._lines[first : last + 1] = lines

    def at(self, position: types.Position) -> Cursor:
        """Returns a place in the document.

        Raises:
            ValueError: the document has no such line.
        """
        before, behind = self._split(position)
        return Cursor(
            "".join([*self._lines[: position.line], before]),
            "".join([behind, *self._lines[position.line + 1 :]]),
            types.Position(position.line, column_of(before, self._encoding)),
        )

    def with_selected(self, span: types.Range, text: str) -> tuple[Cursor, types.Range]:
        """Returns the place behind a text that would stand in the place of a part of one line.

        Returns:
            The place, and the part in the editor's units.

        Raises:
            ValueError: the part is not in one line of the document.
        """
        if span.start.line != span.end.line or span.end.character < span.start.character:
            raise ValueError(f"the range {span} of the selected completion is not one of a line")
        before, behind = self.at(span.start), self.at(span.end)
        cursor = Cursor(before.prefix + text, behind.suffix, before.position)
        return cursor, types.Range(before.position, behind.position)

    def _split(self, position: types.Position) -> tuple[str, str]:
        """Returns both sides of a position in its line; one line below the last is empty."""
        if position.line == len(self._lines):
            return "", ""
        if not 0 <= position.line < len(self._lines) or position.character < 0:
            raise ValueError(
                f"the position {position} is not in {self.uri}, which has {len(self._lines)} "
                "lines (lines and characters count from 0)"
            )
        line = self._lines[position.line]
        at = index_of(line.rstrip("\r\n"), position.character, self._encoding)
        return line[:at], line[at:]


class Documents:
    """The open files of one editor; `encoding` is what it counts columns in."""

    def __init__(self) -> None:
        self.encoding = UTF16
        self._open: dict[str, Document] = {}

    def __iter__(self) -> Iterator[Document]:
        """The one that changed last comes last."""
        return iter(tuple(self._open.values()))

    def __getitem__(self, uri: str) -> Document:
        """Returns an open document.

        Raises:
            ValueError: it is not open.
        """
        found = self._open.get(unquote(uri))
        if found is None:
            raise ValueError(f"{uri} is not open here: send textDocument/didOpen first")
        return found

    def open(self, item: types.TextDocumentItem) -> None:
        """Takes a document up, or up again."""
        self.close(item.uri)
        text = _without_surrogates(item.text)
        self._open[unquote(item.uri)] = Document(item.uri, text, item.language_id, self.encoding)

    def change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Follows the editor.

        Raises:
            ValueError: the document is not open, or a change cannot be one of it. It counts as
                closed then: completions for another text than the editor's would be wrong.
        """
        uri = params.text_document.uri
        document = self[uri]
        del self._open[unquote(uri)]
        for change in params.content_changes:
            text = _without_surrogates(change.text)
            document.change(text, getattr(change, "range", None))
        self._open[unquote(uri)] = document

    def close(self, uri: str) -> None:
        """Forgets a document; nothing if it is not open."""
        self._open.pop(unquote(uri), None)


def path_of(uri: str) -> str:
    """Returns the path of a file's URI; empty for other URIs."""
    return (to_fs_path(uri) or "") if urlsplit(uri).scheme == "file" else ""


def _lines(text: str) -> list[str]:
    """Returns a text's lines with their ends; the last one has none."""
    lines = _LINE.findall(text)
    if not lines or lines[-1].endswith(("\r", "\n")):
        lines.append("")
    return lines


def _language(language_id: str, path: str) -> str:
    try:
        return find_language(language_id).key
    except ValueError:
        found = language_of_path(path)
        return found.key if found else ""


def _without_surrogates(text: str) -> str:
    """Half characters, which JSON can hold and no file can, become U+FFFD, which is as wide."""
    return _SURROGATE.sub("\ufffd", text)
