"""Guesses of what comes next, from what was written before."""

from __future__ import annotations

import pytest

from codegeex.complete import Completer, Options
from codegeex.complete.drafts import Drafts
from codegeex.fim import format_of
from codegeex.hole import Hole
from codegeex.testing import tiny_code_model
from glm_core.infer.engine import Engine, EngineConfig

HEAD = "import math\n\n\ndef area(radius):\n    "


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", "return math.pi"),
        ("r", "eturn math.pi"),
        ("return math.", "pi"),
        ("return math.pi", ""),
        ("x", ""),
        ("rx", ""),
    ],
)
def test_rest_of_the_last_text_is_expected_while_it_is_typed(typed: str, expected: str) -> None:
    drafts = Drafts()
    drafts.remember(HEAD, "\n\n", "return math.pi")
    assert drafts.find(HEAD + typed, "\n\n") == expected
    assert drafts.find(HEAD + typed, "\nprint()") == ""


def test_what_was_deleted_is_expected_again() -> None:
    drafts = Drafts()
    drafts.remember(HEAD + "ret", "", "urn 1")
    assert drafts.find(HEAD + "re", "") == "turn 1"
    drafts.remember(HEAD + "re", "", "pr(x)")
    drafts.remember(HEAD + "ret", "", "urn 2")
    assert drafts.find(HEAD + "re", "") == "pr(x)"


def test_a_place_is_known_when_an_editor_shows_less_of_the_file() -> None:
    drafts = Drafts()
    lines = "".join(f"line_{number} = {number}\n" for number in range(100))
    drafts.remember(lines, "", "last = 1")
    assert drafts.find(lines[300:] + "la", "") == "st = 1"
    assert drafts.find("line_99 = 99\nla", "") == "st = 1"


def test_the_newest_text_counts_and_old_ones_are_forgotten() -> None:
    drafts = Drafts()
    drafts.remember(HEAD, "", "first")
    drafts.remember(HEAD, "", "second")
    assert drafts.find(HEAD, "") == "second"
    for number in range(64):
        drafts.remember(f"{number}", "", "x")
    assert drafts.find(HEAD, "") == ""


def test_completions_are_the_same_in_fewer_steps_when_they_are_typed() -> None:
    model, tokenizer = tiny_code_model(seed=2)
    options = Options(max_new_tokens=12, raw=True)
    with Engine(model, tokenizer, config=EngineConfig(cache_bytes=1 << 22)) as engine:
        fresh = Completer(engine, format_of(tokenizer), "tiny")
        first = fresh.submit(Hole(prefix=HEAD), options).outcome().choices[0].text
        for end in range(1, 5):
            hole = Hole(prefix=HEAD + first[:end])
            expected = Completer(engine, format_of(tokenizer), "tiny").submit(hole, options)
            assert fresh.submit(hole, options).outcome().choices == expected.outcome().choices
        hole = Hole(prefix=HEAD)
        before = engine.stats().counters["steps"]
        assert fresh.submit(hole, options).outcome().choices[0].text == first
        assert engine.stats().counters["steps"] - before <= 4
