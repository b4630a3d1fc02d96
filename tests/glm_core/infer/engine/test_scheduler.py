"""Steps of the scheduler, one by one and without a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import Tensor

from glm_core.infer.answer import Vocabulary
from glm_core.infer.engine import EngineRequest, RequestCancelled, RequestFailed, Ticket
from glm_core.infer.engine.job import Job, new_job
from glm_core.infer.engine.pace import Pace
from glm_core.infer.engine.row import Row
from glm_core.infer.engine.scheduler import Scheduler
from glm_core.infer.engine.stats import Recorder
from glm_core.infer.layout import Layout, layout_for
from glm_core.infer.paged import Runner, Work
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
Ask = Callable[..., EngineRequest]
EXACTLY = {"max_new_tokens": 12, "min_new_tokens": 12}
LONG_TEXT = "A context manager enters and leaves it. The value goes to the caller. " * 2


class Bench:
    """A scheduler and the means to give it requests."""

    def __init__(self, model: Transformer, tokenizer: ByteBPETokenizer, **limits: int) -> None:
        settings = {"max_running": 4, "prefill_chunk": 5, "pages": 32} | limits
        self.layout: Layout = layout_for(model.config)
        self.runner = Runner(model, settings["pages"])
        self.scheduler = Scheduler(
            self.runner,
            settings["max_running"],
            Pace(settings["prefill_chunk"], 1.0),
            tokenizer.vocab_size,
            Recorder(),
        )
        self._vocabulary = Vocabulary(tokenizer, model.config.vocab_size)
        self._limit = model.config.max_position_embeddings
        self._num = 0

    def add(self, request: EngineRequest) -> Job:
        self._num += 1
        ticket = Ticket(str(self._num), lambda: None)
        job = new_job(request, ticket, self._num, self.layout, self._vocabulary, self._limit)
        self.scheduler.add(job)
        return job

    def run(self, most: int = 500) -> int:
        """Steps until all is done; returns how many steps it took."""
        for count in range(most):
            if self.scheduler.is_idle:
                return count
            self.scheduler.step()
        raise AssertionError(f"not done after {most} steps")


@pytest.fixture
def bench(build_model: Build, tokenizer: ByteBPETokenizer) -> Callable[..., Bench]:
    def make(**limits: Any) -> Bench:
        kind = limits.pop("kind", GenerationLayout.causal)
        model = build_model(generation_layout=kind, max_position_embeddings=160)
        return Bench(model, tokenizer, **limits)

    return make


def _num_tokens(job: Job) -> list[int]:
    return [len(row.answer.tokens) for row in job.rows]


def test_running_answers_get_a_token_at_every_step_while_a_long_prompt_is_read(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    one = bench()
    short = one.add(ask("A", one.layout, EXACTLY))
    one.scheduler.step()
    long = one.add(ask(LONG_TEXT, one.layout, EXACTLY))
    for step in range(2, 12):
        one.scheduler.step()
        assert _num_tokens(short) == [step]
        assert long.num_read == 5 * (step - 1) and not long.rows
    assert len(long.ids) > 55
    one.run()
    assert short.is_done and long.is_done


def test_prompt_tokens_of_one_step_are_bounded_and_shared(
    bench: Callable[..., Bench], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, read = bench(prefill_chunk=8), list[int]()
    step = one.runner.step

    def counting(works: Sequence[Work]) -> list[Tensor | None]:
        read.append(sum(len(work.ids) for work in works))
        return step(works)

    monkeypatch.setattr(one.runner, "step", counting)
    jobs = [one.add(ask(text, one.layout, EXACTLY)) for text in (LONG_TEXT, "A", "The return")]
    one.run()
    assert max(read) <= 8 + len(jobs)
    # what the longest prompt leaves of a step goes to the next one
    assert sum(count >= 8 for count in read) >= sum(len(job.ids) for job in jobs) // 8 - 1


def test_short_prompts_are_read_beside_a_long_one_that_came_before(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    one = bench(prefill_chunk=8)
    long = one.add(ask(LONG_TEXT, one.layout, EXACTLY))
    shorts = [one.add(ask(text, one.layout, EXACTLY)) for text in ("The return", "A", "The")]
    longest = max(len(job.ids) for job in shorts)
    assert longest <= 8 < len(long.ids) / 5
    for step in range(1, 1 + sum(-(-len(job.ids) // 4) for job in shorts)):
        one.scheduler.step()
        assert long.num_read >= 4 * step
    assert all(job.rows for job in shorts) and not long.rows
    one.run()


def test_context_that_is_seen_as_a_whole_is_read_in_one_step(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    one = bench(kind=GenerationLayout.blank)
    short = one.add(ask("A", one.layout, EXACTLY))
    one.scheduler.step()
    long = one.add(ask(LONG_TEXT, one.layout, EXACTLY))
    one.scheduler.step()
    assert _num_tokens(short) == [2]
    one.scheduler.step()
    assert _num_tokens(short) == [3] and long.num_read >= len(long.ids) - 1
    one.run()


def test_requests_start_by_priority_and_then_by_arrival(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    one, order = bench(max_running=1), list[int]()
    jobs = [one.add(ask("A", one.layout, priority=priority)) for priority in (1, 0, 1, -1, 0)]
    while not one.scheduler.is_idle:
        one.scheduler.step()
        order += [n for n, job in enumerate(jobs) if job.is_started and n not in order]
    assert order == [3, 1, 4, 0, 2]


def test_request_waits_until_pages_for_its_longest_answer_are_free(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    one = bench(pages=3)  # of 64 columns each
    first = one.add(ask("A", one.layout, {"max_new_tokens": 90}))
    second = one.add(ask("The", one.layout, {"max_new_tokens": 90}))
    small = one.add(ask("größe", one.layout, {"max_new_tokens": 4}))
    for _ in range(5):
        one.scheduler.step()
    assert first.is_started and not second.is_started
    assert not small.is_started  # it came later: what is small does not overtake
    one.run()
    assert first.is_done and second.is_done and small.is_done
    assert one.runner.num_free_pages == 3


def test_request_that_can_never_start_fails_instead_of_waiting(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    one = bench(pages=1)
    large = one.add(ask("A", one.layout, {"max_new_tokens": 90}))
    small = one.add(ask("A", one.layout, EXACTLY))
    one.run()
    with pytest.raises(RequestFailed, match="the cache has not enough pages for it"):
        large.ticket.outcome()
    assert small.is_done


def test_answers_of_one_request_need_as_many_rows(bench: Callable[..., Bench], ask: Ask) -> None:
    one = bench(max_running=4)
    first = one.add(ask("A", one.layout, EXACTLY, choices=3))
    second = one.add(ask("The", one.layout, EXACTLY, choices=2))
    one.scheduler.step()
    assert first.is_started and not second.is_started
    one.run()
    assert [len(job.rows) for job in (first, second)] == [3, 2]


def test_nothing_of_a_request_is_left_when_it_ends_at_any_step(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    for steps in range(20):
        one = bench()
        other = one.add(ask("A", one.layout, EXACTLY))
        ended = one.add(ask("The return statement ends", one.layout, EXACTLY, choices=3))
        for _ in range(steps):
            one.scheduler.step()
        one.scheduler.end(ended, RequestCancelled("cancelled"))
        assert ended not in one.scheduler.running and ended not in one.scheduler.waiting
        one.run()
        assert other.is_done and one.runner.num_free_pages == 32


def test_request_that_fails_when_its_answers_begin_leaves_no_page(
    bench: Callable[..., Bench], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, calls = bench(), list[int]()
    fork = one.runner.fork

    def failing(text: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("no page")
        return fork(text)

    monkeypatch.setattr(one.runner, "fork", failing)
    bad = one.add(ask("The", one.layout, EXACTLY, choices=4))
    good = one.add(ask("A", one.layout, EXACTLY))
    one.run()
    with pytest.raises(Exception, match="the request failed: no page"):
        bad.ticket.outcome()
    assert good.is_done and one.runner.num_free_pages == 32


def test_request_behind_one_that_is_cancelled_need_not_wait(
    bench: Callable[..., Bench], ask: Ask
) -> None:
    one = bench(pages=3)
    one.add(ask("A", one.layout, {"max_new_tokens": 90}))
    large = one.add(ask("The", one.layout, {"max_new_tokens": 90}))
    small = one.add(ask("größe", one.layout, {"max_new_tokens": 4}))
    one.scheduler.step()
    one.scheduler.end(large, RequestCancelled("cancelled"))
    one.scheduler.step()
    assert small.is_started
    one.run()


def test_request_fails_alone_when_its_next_blank_cannot_begin(
    bench: Callable[..., Bench], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench(kind=GenerationLayout.blank)
    blanks = "The [MASK] wraps [MASK]"
    bad = one.add(ask(blanks, one.layout, {"max_new_tokens": 30, "stop": ["e", "t", "a", "s"]}))
    good = one.add(ask("A", one.layout, EXACTLY))
    monkeypatch.setattr(Row, "next_blank", lambda _: 10**6)
    one.run()
    with pytest.raises(RequestFailed, match="cannot crop"):
        bad.ticket.outcome()
    assert good.is_done and one.runner.num_free_pages == 32


def test_prompts_are_not_cut_when_they_fit_whole(
    bench: Callable[..., Bench], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, pieces = bench(prefill_chunk=8, max_running=8), list[int]()
    step = one.runner.step

    def counting(works: Sequence[Work]) -> list[Tensor | None]:
        pieces.append(sum(len(work.ids) > 1 for work in works))
        return step(works)

    monkeypatch.setattr(one.runner, "step", counting)
    texts = ("The return", "The with", "The value goes", "The code leaves")
    jobs = [one.add(ask(text, one.layout, {"max_new_tokens": 1})) for text in texts]
    assert all(1 < len(job.ids) <= 8 for job in jobs)
    one.run()
    assert sum(pieces) == len(jobs)
