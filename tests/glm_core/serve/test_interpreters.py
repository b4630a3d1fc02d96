from __future__ import annotations

import pytest

from glm_core.serve.errors import ApiError
from glm_core.serve.interpreters import Interpreters


class FakeExecutor:
    def __init__(self) -> None:
        self.told: list[str] = []

    def interrupt(self) -> None:
        self.told.append("interrupt")

    def close(self) -> None:
        self.told.append("close")


def make_interpreters(max_sessions: int) -> tuple[Interpreters, list[FakeExecutor]]:
    made: list[FakeExecutor] = []

    def make() -> FakeExecutor:
        made.append(FakeExecutor())
        return made[-1]

    return Interpreters(make, max_sessions), made  # type: ignore[arg-type, return-value]


def test_interpreter_is_the_same_when_a_conversation_goes_on() -> None:
    interpreters, made = make_interpreters(2)
    for _ in range(3):
        with interpreters.using("a"):
            pass
    assert len(made) == 1
    assert made[0].told == []


def test_oldest_makes_room_when_there_are_too_many() -> None:
    interpreters, made = make_interpreters(2)
    for session in ("a", "b", "a", "c"):
        with interpreters.using(session):
            pass
    assert [one.told for one in made] == [[], ["close"], []]


def test_conversation_waits_when_its_interpreter_is_in_use() -> None:
    interpreters, _ = make_interpreters(2)
    with interpreters.using("a"), pytest.raises(ApiError, match="is in use") as caught:
        with interpreters.using("a"):
            pass
    assert caught.value.status == 429
    assert "Retry-After" in caught.value.headers


def test_new_conversation_waits_when_all_are_in_use() -> None:
    interpreters, _ = make_interpreters(1)
    with interpreters.using("a"), pytest.raises(ApiError, match="all code interpreters"):
        with interpreters.using("b"):
            pass
    with interpreters.using("b"):  # room again
        pass


def test_only_running_code_is_stopped_when_interrupted() -> None:
    interpreters, made = make_interpreters(2)
    with interpreters.using("a"):
        interpreters.interrupt("b")
        interpreters.interrupt("a")
    interpreters.interrupt("a")
    assert made[0].told == ["interrupt"]


def test_all_are_ended_when_closed() -> None:
    interpreters, made = make_interpreters(3)
    with interpreters.using("idle"):
        pass
    with interpreters.using("busy"):
        interpreters.close()
    assert [one.told for one in made] == [["close"], ["close"]]
