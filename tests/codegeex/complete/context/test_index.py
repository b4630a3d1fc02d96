"""Windows that are alike, against sets compared one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.complete.context.index import IndexedFile, WindowIndex, Words
from codegeex.complete.context.reading import Reading
from codegeex.complete.context.walk import FoundFile
from codegeex.complete.context.windows import LINES, likeness, windows_of, words_of

NAMES = st.sampled_from("alpha beta gamma delta epsilon zeta eta_1 theta".split())
TEXTS = st.lists(st.lists(NAMES, max_size=4).map(" ".join), max_size=80).map("\n".join)


def _files(texts: list[str], words: Words) -> dict[str, IndexedFile]:
    return {
        f"{number}.py": words.file(
            FoundFile(f"{number}.py", "python", number, len(text)), windows_of(text)
        )
        for number, text in enumerate(texts)
    }


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.frozensets(NAMES), st.integers(1, 9), st.data())
def test_search_finds_the_windows_with_the_highest_jaccard_index(
    texts: list[str], query: frozenset[str], most: int, data: st.DataObject
) -> None:
    weights = data.draw(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(texts), max_size=len(texts))
    )
    words = Words()
    index = WindowIndex(_files(texts, words))
    found = index.search(words.known(query), len(query), weights, most)
    expected = sorted(
        (
            weight * likeness(query, window.words)
            for text, weight in zip(texts, weights, strict=True)
            for window in windows_of(text)
        ),
        reverse=True,
    )
    expected = [score for score in expected if score > 0][:most]
    assert [round(spot.score, 9) for spot in found] == [round(score, 9) for score in expected]


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXTS, min_size=2, max_size=5), st.frozensets(NAMES, min_size=1))
def test_changed_files_are_found_as_they_are_now(texts: list[str], query: frozenset[str]) -> None:
    words = Words()
    before = _files(texts, words)
    reading = Reading({}, large=WindowIndex(before)).then(before)
    after = {**before, **{"0.py": _files([texts[1]], words)["0.py"]}}
    del after["1.py"]
    known = words.known(query)
    found = reading.then(after).search(known, len(query), lambda files: [1.0] * len(files), 50)
    alone = WindowIndex(after).search(known, len(query), [1.0] * len(after), 50)
    assert sorted((s.path, s.begin, s.score) for s in found) == sorted(
        (s.path, s.begin, s.score) for s in alone
    )


@given(TEXTS)
def test_windows_are_the_whole_file(text: str) -> None:
    lines = text.splitlines()
    covered = {number for one in windows_of(text) for number in range(one.begin, one.end)}
    assert all(not words_of(line) or number in covered for number, line in enumerate(lines))
    assert all(one.end - one.begin <= LINES for one in windows_of(text))


def test_words_are_identifiers_of_three_letters_and_more() -> None:
    assert words_of("x = foo_1(ab, größe, 123, _private)") == {"foo_1", "größe", "_private"}
