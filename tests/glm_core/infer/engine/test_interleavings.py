"""Any order of requests, cancellations, timeouts and failing steps leaves nothing behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_core.infer.answer import Vocabulary
from glm_core.infer.engine import (
    Engine,
    EngineConfig,
    EngineError,
    EngineRequest,
    RequestCancelled,
    RequestFailed,
    RequestTimedOut,
    Ticket,
)
from glm_core.infer.engine.job import Job, new_job
from glm_core.infer.engine.pace import Pace
from glm_core.infer.engine.scheduler import Scheduler
from glm_core.infer.engine.stats import Recorder
from glm_core.infer.layout import layout_for
from glm_core.infer.paged import Runner
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
Ask = Callable[..., EngineRequest]
TEXTS = ("A", "The return statement", "A context manager enters and leaves it. The value", "größe")
PAGES = 6
ENDS = (RequestCancelled, RequestFailed, RequestTimedOut)


@dataclass(frozen=True)
class Action:
    """Something that happens between two steps."""

    kind: str
    number: int
    fields: dict[str, Any]


fields = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.integers(1, 3),
        "priority": st.integers(-1, 1),
        "timeout_s": st.sampled_from([1e-9, 0.002, 60.0]),
        "logprobs": st.integers(0, 2),
        "client": st.just("me"),
        "draft": st.lists(st.integers(0, 60), max_size=9).map(tuple),
    },
)
actions = st.lists(
    st.builds(
        Action,
        st.sampled_from(["submit", "submit", "cancel", "step", "step", "step", "fail"]),
        st.integers(0, 7),
        fields,
    ),
    max_size=30,
)


def _text(number: int, has_blanks: bool) -> str:
    return "The [MASK] wraps [sMASK]" if has_blanks and number >= 4 else TEXTS[number % 4]


@pytest.mark.parametrize("kind", [GenerationLayout.causal, GenerationLayout.blank])
def test_no_page_and_no_request_is_left_after_any_order_of_events(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, kind: GenerationLayout
) -> None:
    model = build_model(generation_layout=kind)
    layout, vocabulary = layout_for(model.config), Vocabulary(tokenizer, model.config.vocab_size)
    alone: dict[tuple[int, int], Any] = {}

    class Flaky(Runner):
        faults = 0

        def step(self, works: Any) -> Any:
            if self.faults:
                self.faults -= 1
                raise RuntimeError("a step failed")
            return super().step(works)

    def job(number: int, request: EngineRequest) -> Job:
        ticket = Ticket(f"r{number}", lambda: None)
        return new_job(request, ticket, number, layout, vocabulary, 96)

    def run(events: Sequence[Action]) -> tuple[list[Job], Flaky]:
        runner = Flaky(model, PAGES)
        scheduler = Scheduler(runner, 4, Pace(5, 1.0), tokenizer.vocab_size, Recorder())
        jobs: list[Job] = []
        for event in events:
            match event.kind:
                case "submit":
                    text = _text(event.number, layout.has_blanks)
                    jobs.append(job(len(jobs), ask(text, layout, None, **event.fields)))
                    scheduler.add(jobs[-1])
                case "cancel" if jobs:
                    scheduler.end(jobs[event.number % len(jobs)], RequestCancelled("cancelled"))
                case "fail":
                    runner.faults = event.number
                case _:
                    scheduler.step()
            assert 0 <= runner.num_free_pages <= PAGES
            assert sum(job.request.choices for job in scheduler.running) <= 4
        runner.faults = 0
        for _ in range(600):
            if scheduler.is_idle:
                break
            scheduler.step()
        assert scheduler.is_idle and runner.num_free_pages == PAGES
        return jobs, runner

    def tokens_alone(request: EngineRequest, number: int) -> Any:
        key = number, request.choices
        if key not in alone:
            event = Action("submit", number, {"choices": request.choices})
            ((one,), _) = run([event])
            alone[key] = _tokens(one)
        return alone[key]

    def _tokens(one: Job) -> Any:
        outcome = one.ticket.outcome()
        return [[blank.tokens for blank in blanks] for blanks in outcome.choices]

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(actions)
    def check(events: Sequence[Action]) -> None:
        jobs, _ = run(events)
        numbers = [event.number for event in events if event.kind == "submit"]
        for one, number in zip(jobs, numbers, strict=True):
            assert one.ticket.is_done
            with suppress(*ENDS):
                assert _tokens(one) == tokens_alone(one.request, number)

    check()


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=actions)
def test_no_thread_and_no_page_is_left_when_threads_submit_and_leave(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, events: Sequence[Action]
) -> None:
    before = threading.active_count()
    limits = EngineConfig(max_running=4, prefill_chunk=5, cache_bytes=6 * 65536 * 2, max_queued=9)
    tickets: list[Ticket] = []
    with Engine(build_model(), tokenizer, config=limits) as engine:
        step, faults = engine.runner.step, [0]

        def flaky(works: Any) -> Any:
            if faults[0]:
                faults[0] -= 1
                raise RuntimeError("a step failed")
            return step(works)

        engine.runner.step = flaky  # type: ignore[method-assign]
        for event in events:
            match event.kind:
                case "submit":
                    newest = {"newest_wins": True} if "client" in event.fields else {}
                    text = _text(event.number, True)
                    with suppress(EngineError):
                        request = ask(text, engine.layout, None, **event.fields, **newest)
                        tickets.append(engine.submit(request))
                case "cancel" if tickets:
                    tickets[event.number % len(tickets)].cancel()
                case "fail":
                    faults[0] = event.number
                case _ if tickets:
                    with suppress(*ENDS):
                        for _ in tickets[-1]:
                            break
        engine.drain()
        stats = engine.stats()
    assert all(ticket.is_done for ticket in tickets)
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    ended = ("finished", "cancelled", "timed_out", "failed")
    assert sum(stats.counters[name] for name in ended) == len(tickets)
    assert threading.active_count() == before


def test_an_engine_keeps_nothing_of_requests_that_have_ended(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    with Engine(build_model(), tokenizer) as engine:
        longest = engine.submit(ask("The", engine.layout, {"max_new_tokens": 60}, timeout_s=60.0))
        ended = [
            engine.submit(ask("A", engine.layout, {"max_new_tokens": 1}, timeout_s=3600.0))
            for _ in range(5)
        ]
        for ticket in ended:
            ticket.outcome()
        remembered = [weakref.ref(ticket) for ticket in ended]
        del ended, ticket
        longest.outcome()
        engine.drain()
        gc.collect()
        assert [one() for one in remembered] == [None] * 5
