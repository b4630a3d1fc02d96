"""Cursors as editors give them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegeex.complete.cursor import Columns, split_at, split_bytes, text_of

TEXT = "a = 1\r\nb = 'größe 🙂 x'\rc\n"
UNITS = {Columns.utf8: "utf-8", Columns.utf16: "utf-16-le", Columns.utf32: "utf-32-le"}
SIZES = {Columns.utf8: 1, Columns.utf16: 2, Columns.utf32: 4}


@given(st.text(alphabet="aö🙂 \n", max_size=30), st.data())
def test_columns_are_units_of_the_encoding(text: str, data: st.DataObject) -> None:
    lines = text.split("\n")
    line = data.draw(st.integers(0, len(lines) - 1))
    for columns, encoding in UNITS.items():
        before = data.draw(st.integers(0, len(lines[line])))
        character = len(lines[line][:before].encode(encoding)) // SIZES[columns]
        prefix, suffix = split_at(text, line, character, columns)
        assert prefix + suffix == text
        assert prefix == "\n".join([*lines[:line], lines[line][:before]])


@pytest.mark.parametrize(
    ("columns", "character"),
    [(Columns.utf16, 12), (Columns.utf8, 14), (Columns.utf8, 15), (Columns.utf32, 11)],
)
def test_position_inside_a_character_is_moved_to_its_beginning(
    columns: Columns, character: int
) -> None:
    prefix, suffix = split_at(TEXT, 1, character, columns)
    assert suffix.startswith("🙂 x") and prefix.endswith("größe ")


@pytest.mark.parametrize(
    ("line", "character", "behind"),
    [(0, 99, "\r\nb"), (1, 99, "\rc"), (2, 0, "c\n"), (3, 0, ""), (3, 5, ""), (4, 0, "")],
)
def test_position_beyond_a_line_is_its_end(line: int, character: int, behind: str) -> None:
    prefix, suffix = split_at(TEXT, line, character)
    assert prefix + suffix == TEXT and suffix.startswith(behind)
    assert suffix or not behind


@pytest.mark.parametrize(
    ("line", "character", "message"),
    [
        (-1, 0, "the position -1:0 is not in the file"),
        (0, -2, "the position 0:-2 is not in the file"),
        (5, 0, "line 5 is not in the file, whose last line is 3"),
    ],
)
def test_position_is_refused_when_the_file_has_none_such(
    line: int, character: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split_at(TEXT, line, character)


def test_offset_inside_a_character_is_moved_to_its_beginning() -> None:
    data = TEXT.encode()
    for offset in range(len(data) + 1):
        prefix, suffix = split_bytes(data, offset)
        assert prefix + suffix == TEXT
        assert 0 <= offset - len(prefix.encode()) <= 3


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        (b"abc", 4, "offset 4 is not in x.py, which has 3 bytes"),
        (b"abc", -1, "offset -1 is not in x.py"),
        (b"a\xffc", 2, r"x.py is not UTF-8 \(byte 0xff at 1\): convert it"),
        (b"a\0c", 2, "x.py holds NUL bytes: it is binary, not code"),
    ],
)
def test_bytes_are_refused_when_they_are_no_text(data: bytes, offset: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_bytes(data, offset, "x.py")


def test_large_file_is_split_at_once() -> None:
    text = "x = 1\n" * 1_500_000
    prefix, suffix = split_at(text, 1_000_000, 3)
    assert len(prefix) == 6_000_003 and len(prefix) + len(suffix) == len(text)
    assert text_of(text.encode()) == text
