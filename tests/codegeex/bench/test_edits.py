"""The typing session: what somebody who types a file shows to an editor."""

from __future__ import annotations

import inspect
import textwrap

import pytest

from codegeex.bench.edits import FEWEST, MOST, Edit, standard_file, typing_session
from codegeex.bench.measure import places

SOURCE = inspect.getsource(textwrap)


@pytest.fixture(scope="module")
def session() -> list[Edit]:
    return typing_session(SOURCE, 2000, seed=3)


def test_session_is_the_same_for_the_same_seed_only() -> None:
    first, again, other = (typing_session(SOURCE, 50, seed) for seed in (1, 1, 2))
    assert first == again != other and len(first) == 50


def test_what_stands_behind_the_cursor_stays_while_a_place_is_typed(session: list[Edit]) -> None:
    for place in places(session):
        assert [edit.keystroke for edit in place] == list(range(len(place)))
        assert len({edit.after for edit in place}) == 1
        assert len(place) <= MOST


def test_keystrokes_add_a_character_or_delete_one(session: list[Edit]) -> None:
    grown: list[int] = []
    for place in places(session):
        for before, after in zip(place, place[1:], strict=False):
            if len(after.before) < len(before.before):
                assert before.before.startswith(after.before)
            else:
                new = after.before[len(before.before) :]
                assert after.before.startswith(before.before)
                assert len(new) == 1 or (new[0] == "\n" and not new.strip())
            grown.append(len(after.before) - len(before.before))
    assert 0 < grown.count(-1) < 0.1 * len(grown)


def test_what_is_typed_is_what_the_file_has_but_for_slips(session: list[Edit]) -> None:
    slips = sum(not SOURCE.startswith(edit.before) for edit in session)
    assert all(SOURCE.endswith(edit.after) for edit in session)
    assert 0 < slips < 0.1 * len(session)


def test_some_places_have_a_rest_of_the_line_behind_the_cursor(session: list[Edit]) -> None:
    rests = [place[0].after.partition("\n")[0] for place in places(session)]
    assert 0.05 < sum(map(bool, rests)) / len(rests) < 0.4
    assert max(map(len, rests)) <= 8 <= FEWEST


def test_a_file_without_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="no line of 8 characters to type"):
        typing_session("x = 1\n\n# a long comment is nothing to type\n", 3, 0)


def test_a_file_of_the_standard_library_is_chosen_by_the_seed() -> None:
    found = {standard_file(seed) for seed in range(20)}
    assert len(found) > 5 and all(path.suffix == ".py" for path in found)
    assert standard_file(7) == standard_file(7)
