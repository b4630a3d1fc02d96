from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from codegeex.lsp.documents import Document, Documents, path_of

URI = "file:///src/a%20b.py"
TEXTS = st.text(st.sampled_from(list("ab\r\n\n\x0c\u2028é🙂")), max_size=12)


def position(line: int, character: int) -> types.Position:
    return types.Position(line, character)


def positions_of(text: str) -> list[tuple[types.Position, int]]:
    """Every place between characters of a text, in UTF-16 as the protocol has it, and its index.

    Found by looking at each character once: nothing of ours.
    """
    found, line, column, index = [], 0, 0, 0
    while True:
        found.append((position(line, column), index))
        if index == len(text):
            return found
        size = 2 if text.startswith("\r\n", index) else 1
        if text[index] in "\r\n":
            line, column = line + 1, 0
        else:
            column += len(text[index].encode("utf-16-le")) // 2
        index += size


@given(TEXTS, st.data())
def test_text_is_the_editors_when_parts_of_it_change(text: str, data: st.DataObject) -> None:
    document = Document(URI, text)
    for _ in range(4):
        places = positions_of(text)
        first = data.draw(st.integers(0, len(places) - 1))
        last = data.draw(st.integers(first, len(places) - 1))
        new = data.draw(TEXTS)
        (start, begin), (stop, end) = places[first], places[last]
        text = text[:begin] + new + text[end:]
        document.change(new, types.Range(start, stop))
        assert document.text == text
        for place, index in positions_of(text):
            cursor = document.at(place)
            assert (cursor.prefix, cursor.suffix) == (text[:index], text[index:])
            assert cursor.position == place


def test_whole_text_is_replaced_when_the_change_has_no_range() -> None:
    document = Document(URI, "a\nb\n")
    document.change("c")
    assert document.text == "c"


@pytest.mark.parametrize(
    ("encoding", "asked", "told", "prefix"),
    [
        ("utf-16", (0, 2), (0, 1), "é"),  # in a surrogate pair
        ("utf-8", (0, 4), (0, 2), "é"),  # in a character of four bytes
        ("utf-32", (0, 2), (0, 2), "é🙂"),
        ("utf-16", (0, 99), (0, 4), "é🙂x"),
        ("utf-16", (1, 99), (1, 1), "é🙂x\r\ny"),
        ("utf-16", (2, 99), (2, 0), "é🙂x\r\ny\r\n"),
        ("utf-16", (3, 0), (3, 0), "é🙂x\r\ny\r\n"),
    ],
)
def test_cursor_is_moved_when_there_is_no_such_place(
    encoding: str, asked: tuple[int, int], told: tuple[int, int], prefix: str
) -> None:
    document = Document(URI, "é🙂x\r\ny\r\n", encoding=encoding)
    cursor = document.at(position(*asked))
    assert cursor.position == position(*told)
    assert cursor.prefix == prefix and cursor.prefix + cursor.suffix == document.text


def test_error_when_the_line_is_not_in_the_file() -> None:
    with pytest.raises(ValueError, match=r"position 5:0 is not in file:.*, which has 4 lines"):
        Document(URI, "a\nb\n\n").at(position(5, 0))


def test_error_when_a_range_ends_before_it_begins() -> None:
    with pytest.raises(ValueError, match="ends before it begins"):
        Document(URI, "abc").change("x", types.Range(position(0, 2), position(0, 1)))


def test_selected_text_stands_in_the_place_of_its_range() -> None:
    document = Document(URI, "import os\nos.pa = 1\n")
    span = types.Range(position(1, 3), position(1, 5))
    cursor, where = document.with_selected(span, "path")
    assert cursor.prefix == "import os\nos.path" and cursor.suffix == " = 1\n"
    assert where == span


def test_error_when_the_selected_range_is_not_in_one_line() -> None:
    span = types.Range(position(0, 0), position(1, 0))
    with pytest.raises(ValueError, match="selected completion is not one of a line"):
        Document(URI, "a\nb").with_selected(span, "x")


def opened(text: str = "a\n") -> Documents:
    documents = Documents()
    documents.open(types.TextDocumentItem(URI, "python", 1, text))
    return documents


def change(text: str, *span: types.Position) -> types.DidChangeTextDocumentParams:
    event: types.TextDocumentContentChangeEvent = types.TextDocumentContentChangeWholeDocument(text)
    if span:
        event = types.TextDocumentContentChangePartial(types.Range(*span), text)
    return types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(2, URI), [event])


def test_document_is_the_same_when_its_uri_is_escaped_otherwise() -> None:
    documents = opened()
    documents.change(change("b", position(0, 0), position(0, 1)))
    assert documents["file:///src/a b.py"].text == "b\n"


def test_document_is_closed_when_a_change_does_not_fit_it() -> None:
    documents = opened()
    with pytest.raises(ValueError, match="is not in"):
        documents.change(change("b", position(7, 0), position(7, 0)))
    with pytest.raises(ValueError, match="is not open here: send textDocument/didOpen first"):
        documents[URI]


def test_document_that_changed_last_comes_last() -> None:
    documents = opened()
    documents.open(types.TextDocumentItem("file:///other.go", "go", 1, ""))
    assert [document.language for document in documents] == ["python", "go"]
    documents.change(change("b"))
    assert [document.language for document in documents] == ["go", "python"]


def test_half_characters_are_replaced_and_as_wide() -> None:
    document = opened("x\ud83dy")[URI]
    assert document.text == "x\ufffdy" and document.at(position(0, 2)).suffix == "y"


@pytest.mark.parametrize(
    ("language_id", "uri", "language"),
    [
        ("typescriptreact", "file:///a.tsx", "typescript"),
        ("cpp", "file:///a.h", "c++"),
        ("", "file:///a.rs", "rust"),
        ("no-such-language", "file:///a.go", "go"),
        ("plaintext", "untitled:Untitled-1", ""),
    ],
)
def test_language_is_the_editors_and_else_the_files(
    language_id: str, uri: str, language: str
) -> None:
    assert Document(uri, "", language_id).language == language


def test_path_is_empty_when_the_uri_is_none_of_a_file() -> None:
    assert path_of("untitled:Untitled-1") == ""
    assert path_of(URI) == "/src/a b.py"
