"""Line endings that a file gets back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegeex.complete.line_endings import ToLF, line_ending, to_lf, with_lf
from codegeex.complete.shaper import Shaper
from codegeex.hole import Hole, Reference


@pytest.mark.parametrize(
    ("prefix", "suffix", "ending"),
    [
        ("", "", "\n"),
        ("a", "b", "\n"),
        ("a\r\nb", "\r\n", "\r\n"),
        ("a\nb", "\nc\r\n", "\n"),
        ("a\r", "b\r", "\r"),
        ("a\nb\r\nc", "", "\r\n"),
        ("a\r\nb\nc", "", "\n"),
        ("a\r\nb\r\n", "\nc", "\r\n"),
    ],
)
def test_ending_is_that_of_most_lines_or_of_the_last(prefix: str, suffix: str, ending: str) -> None:
    assert line_ending(prefix, suffix) == ending


@given(st.lists(st.text(alphabet="a\r\n", max_size=3), max_size=8))
def test_pieces_are_normalised_as_the_whole(pieces: list[str]) -> None:
    endings = ToLF()
    found = "".join(endings.push(piece) for piece in pieces)
    whole = "".join(pieces)
    assert found + ("\n" if whole.endswith("\r") else "") == to_lf(whole)


def test_cursor_in_a_line_ending_stands_before_it() -> None:
    reference = Reference(path="b.py", text="x\r\ny\r")
    hole = Hole(prefix="a\r\nb\r", suffix="\nc\r\n", references=(reference,))
    lines, ending = with_lf(hole)
    assert (lines.prefix, lines.suffix, ending) == ("a\nb", "\nc\n", "\r\n")
    assert lines.references[0].text == "x\ny\n"


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
def test_text_is_shown_in_the_endings_of_the_file(ending: str) -> None:
    shaper = Shaper(ending=ending)
    for piece in ("a\n", "b\r", "\nc", "\r\nd\re"):
        shaper.push(piece)
    assert shaper.finish("a\nb\r\nc\r\nd\re") == ending.join("abcde")
    assert shaper.num_kept == len("a\nb\nc\nd\ne")
