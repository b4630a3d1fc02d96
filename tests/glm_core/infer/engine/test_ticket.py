"""Tickets: pieces that nobody takes grow together, and a loop is woken once a step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from glm_core.infer.answer import FinishReason
from glm_core.infer.engine import BlankAnswer, Outcome, RequestCancelled, Ticket, Timings, Usage
from glm_core.infer.engine.ticket import wake
from glm_core.infer.logprobs import TokenLogprob

OUTCOME = Outcome((), Usage(1, 0, 1), Timings(0, 0, 0, 0))
END = BlankAnswer("", "ab", (1, 2), (), 0.0, 0.0, FinishReason.stop_token, None)


def _ticket(cancel: Callable[[], None] = lambda: None) -> Ticket:
    return Ticket("r1", cancel)


def _token(token: int) -> TokenLogprob:
    return TokenLogprob(token, 0.0)


def test_pieces_of_each_answer_grow_together_when_nobody_takes_them() -> None:
    ticket = _ticket()
    for step in range(3):
        for choice in range(2):
            ticket.put(choice, 0, f"{choice}{step} ", [_token(step)])
    ticket.put(0, 1, "next", [])
    ticket.settle(OUTCOME)
    pieces = [(p.choice, p.blank, p.text, [t.token for t in p.tokens]) for p in ticket]
    assert pieces == [
        (0, 0, "00 01 02 ", [0, 1, 2]),
        (1, 0, "10 11 12 ", [0, 1, 2]),
        (0, 1, "next", []),
    ]


def test_marks_and_ends_close_a_piece() -> None:
    ticket = _ticket()
    ticket.put(0, 0, "a", [_token(1)])
    ticket.put(0, 0, "b", [_token(9)], mark=9)
    ticket.put(0, 0, "c", [])
    ticket.put(0, 0, "d", [], end=END)
    ticket.settle(OUTCOME)
    pieces = list(ticket)
    assert [(p.text, p.mark, p.end) for p in pieces] == [("ab", 9, None), ("cd", None, END)]
    assert list(ticket) == []


def test_memory_of_a_ticket_is_bounded_when_nobody_reads() -> None:
    ticket = _ticket()
    for step in range(1000):
        ticket.put(step % 4, 0, "x", [])
    assert len(ticket._pieces) == 4


def test_pieces_come_before_the_error() -> None:
    ticket = _ticket()
    ticket.put(0, 0, "a", [])
    ticket.settle(RequestCancelled("gone"))
    taken = []
    with pytest.raises(RequestCancelled, match="gone"):
        for piece in ticket:
            taken.append(piece.text)
    assert taken == ["a"]


def test_thread_that_waits_is_woken_by_pieces_and_by_the_end() -> None:
    ticket, taken = _ticket(), list[str]()
    got_one = threading.Event()

    def read() -> None:
        for piece in ticket:
            taken.append(piece.text)
            got_one.set()

    reader = threading.Thread(target=read)
    reader.start()
    ticket.put(0, 0, "a", [])
    wake([ticket])
    assert got_one.wait(10)
    ticket.put(0, 0, "b", [])
    ticket.settle(OUTCOME)
    wake([ticket])
    reader.join(10)
    assert taken == ["a", "b"] and not reader.is_alive()


def test_loop_is_woken_once_for_all_its_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> int:
        loop, calls = asyncio.get_running_loop(), list[object]()
        call = loop.call_soon_threadsafe

        def counting(*args: object) -> object:
            calls.append(args)
            return call(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        tickets = [_ticket() for _ in range(64)]
        readers = [asyncio.create_task(ticket.aoutcome()) for ticket in tickets]
        await asyncio.sleep(0)
        for ticket in tickets:
            ticket.settle(OUTCOME)
        wake(tickets)
        assert await asyncio.gather(*readers) == [OUTCOME] * 64
        return len(calls)

    assert asyncio.run(run()) == 1


def test_wake_passes_over_a_loop_that_is_closed() -> None:
    loop, ticket = asyncio.new_event_loop(), _ticket()
    reader = loop.create_task(ticket.aoutcome())
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    other = _ticket()
    wake([ticket, other])
    assert not reader.done()
    reader._log_destroy_pending = False  # type: ignore[attr-defined]


def test_leaving_an_async_iterator_cancels() -> None:
    cancelled: list[int] = []
    ticket = _ticket(lambda: cancelled.append(1))
    ticket.put(0, 0, "a", [])

    async def leave() -> None:
        async for _ in ticket:
            break
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert cancelled == [1]


def test_cancelling_what_has_ended_does_nothing() -> None:
    cancelled: list[int] = []
    ticket = _ticket(lambda: cancelled.append(1))
    ticket.settle(OUTCOME)
    ticket.cancel()
    assert list(ticket) == [] and cancelled == []
