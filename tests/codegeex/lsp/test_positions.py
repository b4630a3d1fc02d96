from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegeex.lsp.positions import column_of, index_of

LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}


def units(text: str, encoding: str) -> int:
    """What Python's codecs say."""
    codec, size = CODECS[encoding]
    return len(text.encode(codec)) // size


@given(LINES, st.sampled_from(sorted(CODECS)))
def test_column_counts_units_when_the_line_has_any_characters(line: str, encoding: str) -> None:
    assert column_of(line, encoding) == units(line, encoding)


@given(LINES, st.sampled_from(sorted(CODECS)), st.integers(0, 60))
def test_index_is_the_last_character_begun_when_the_column_is_any(
    line: str, encoding: str, column: int
) -> None:
    begun = [n for n in range(len(line) + 1) if units(line[:n], encoding) <= column]
    assert index_of(line, column, encoding) == begun[-1]


@pytest.mark.parametrize(("column", "index"), [(1, 1), (2, 1), (3, 2), (4, 3), (9, 3)])
def test_column_in_a_surrogate_pair_is_moved_to_its_beginning(column: int, index: int) -> None:
    assert index_of("a🙂b", column) == index


@pytest.mark.parametrize(("column", "index"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_column_in_a_character_of_several_bytes_is_moved_to_its_beginning(
    column: int, index: int
) -> None:
    assert index_of("x你ß", column, "utf-8") == index
