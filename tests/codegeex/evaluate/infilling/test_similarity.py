"""Edit distance against the table of the textbooks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.evaluate.infilling.similarity import edit_distance, edit_similarity


def table_distance(one, other):
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
@settings(max_examples=300, deadline=None)
def test_distance_equals_the_tables_when_texts_are_short(one, other):
    assert edit_distance(one, other) == table_distance(one, other)


@given(st.text(max_size=90), st.text(max_size=90))
@settings(max_examples=100, deadline=None)
def test_distance_equals_the_tables_when_texts_are_longer_than_a_word_of_bits(one, other):
    assert edit_distance(one, other) == table_distance(one, other)


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("", "", 1.0),
        ("abc", "abc", 1.0),
        ("abc", "xyz", 0.0),
        ("", "ab", 0.0),
        ("kitten", "sitting", 4 / 7),
    ],
)
def test_similarity_lies_between_nothing_and_all_in_common(one, other, similarity):
    assert edit_similarity(one, other) == pytest.approx(similarity)
