"""Prompts are read in pieces that keep running answers waiting no longer than is allowed."""

from __future__ import annotations

import pytest

from glm_core.infer.engine.pace import Pace


def test_all_that_may_be_is_read_when_nothing_was_measured_or_nobody_waits() -> None:
    pace = Pace(256, 0.1)
    assert pace.room(has_answers=True) == 256
    pace.add(256, False, 2.56)
    assert pace.room(has_answers=False) == 256


def test_as_much_is_read_as_the_time_allows_when_answers_wait() -> None:
    pace = Pace(256, 0.5)
    pace.add(0, True, 0.2)  # answers alone
    pace.add(100, True, 1.2)  # a hundred tokens: one second
    assert pace.room(has_answers=True) == 50
    for _ in range(30):
        pace.add(100, True, 0.7)
    assert pace.room(has_answers=True) == pytest.approx(100, abs=1)


def test_some_is_always_read() -> None:
    pace = Pace(256, 0.01)
    pace.add(64, False, 64.0)
    assert pace.room(has_answers=True) == 32
    few = Pace(5, 0.01)
    few.add(64, False, 64.0)
    assert few.room(has_answers=True) == 5


def test_a_few_tokens_say_nothing() -> None:
    pace = Pace(256, 0.1)
    pace.add(1, True, 5.0)
    assert pace.room(has_answers=True) == 256
