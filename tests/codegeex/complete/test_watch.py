"""The time that a completion may take."""

from __future__ import annotations

import pytest

from codegeex.complete import watch as module
from codegeex.complete.shaper import Shaper
from codegeex.complete.watch import AnswerWatch


def test_time_is_over_only_when_there_is_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    watch = AnswerWatch(Shaper(), time_limit_s=1.0)
    assert not watch("x = 1")
    now[0] += 5
    assert not watch(" + 2") and not watch.is_late
    assert watch("\n") and watch.is_late
    fast = AnswerWatch(Shaper(), time_limit_s=1.0)
    assert not fast("a\nb")  # time begins with the first text
    now[0] += 0.9
    assert not fast("c")
    now[0] += 0.2
    assert fast("d") and fast.shaper.shown == "a\nbcd"
