"""The engine: requests that come together are answered as each alone, and leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from glm_core.infer import Choices, Regex, SamplingConfig, TextGenerator
from glm_core.infer.blanks import ids_prompt
from glm_core.infer.engine import (
    Engine,
    EngineBusy,
    EngineConfig,
    EngineDraining,
    EngineFailed,
    EngineRequest,
    Outcome,
    RequestCancelled,
    RequestFailed,
    RequestTimedOut,
    Ticket,
)
from glm_core.infer.layout import Layout
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
Ask = Callable[..., EngineRequest]
TEXTS = ["The with statement", "A", "context manager enters and leaves it. The", "größe"]
LONG = {"max_new_tokens": 60, "min_new_tokens": 60}
SMALL = EngineConfig(max_running=5, prefill_chunk=7, cache_bytes=1 << 20)


@contextmanager
def _engine(model: Transformer, tokenizer: ByteBPETokenizer, **limits: Any) -> Iterator[Engine]:
    """An engine that must have given back everything when the block ends."""
    before = threading.active_count()
    with Engine(model, tokenizer, config=replace(SMALL, **limits)) as engine:
        yield engine
        engine.drain()
        stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    assert threading.active_count() == before


def _kinds(ask: Ask, tokenizer: ByteBPETokenizer, layout: Layout) -> list[EngineRequest]:
    """Requests of every kind, with everything that can change an answer."""
    drawn: dict[str, Any] = {"temperature": 1.2, "top_p": 0.9, "seed": 5}
    penalties = {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2}
    marks = (tokenizer.cls_id,)
    end = [tokenizer.gmask_id] if layout.has_blanks else []
    chat = ids_prompt([*tokenizer.encode("The value"), *marks, *end], tokenizer, layout)
    requests = [ask(text, layout) for text in TEXTS]
    requests += [
        ask("The return", layout, drawn),
        ask("The return", layout, {**drawn, "top_k": 9, "min_p": 0.02}, choices=3, logprobs=2),
        ask("A context", layout, penalties, logprobs=0),
        ask("A context", layout, {"logit_bias": {40: 5.0}, "stop_token_ids": [41]}),
        ask("The block", layout, {"stop": ["e", "t"], "temperature": 1.0}, logprobs=1),
        ask("The with", layout, grammar=Choices(("yes", "no", "größe"))),
        ask("The with", layout, {**drawn, "max_new_tokens": 20}, grammar=Regex("[a-c]{3,9}")),
        EngineRequest(
            prompt=chat,
            sampling=SamplingConfig(max_new_tokens=9, logit_bias={marks[0]: 3.0}, **drawn),
            marks=marks,
        ),
    ]
    if layout.has_blanks:
        requests += [
            ask("The [MASK] wraps [sMASK]. Then [gMASK]", layout),
            ask("The [MASK] wraps [MASK]", layout, {**drawn, "stop": ["a"]}, choices=2),
        ]
    else:
        requests.append(ask("The return statement ends", layout, prompt_logprobs=2))
    return requests


def _essence(outcome: Outcome) -> Any:
    return [
        [(one.text, one.tokens, one.finish_reason, one.stop_id, one.marker) for one in blanks]
        for blanks in outcome.choices
    ]


def _joined(ticket: Ticket) -> tuple[Outcome, dict[tuple[int, int], str]]:
    texts: dict[tuple[int, int], str] = {}
    tokens: dict[tuple[int, int], list[int]] = {}
    for piece in ticket:
        key = piece.choice, piece.blank
        texts[key] = texts.get(key, "") + piece.text
        tokens.setdefault(key, []).extend(one.token for one in piece.tokens)
        if piece.end is not None:
            assert texts[key] == piece.end.text
            assert tuple(tokens[key]) == piece.end.tokens
    return ticket.outcome(), texts


@pytest.mark.parametrize("kind", list(GenerationLayout))
def test_answers_equal_the_same_request_alone_when_many_kinds_come_together(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, kind: GenerationLayout
) -> None:
    model = build_model(generation_layout=kind, position="rope" if "1d" in kind else "rope_2d")
    with _engine(model, tokenizer) as engine:
        requests = _kinds(ask, tokenizer, engine.layout)
        together = [_joined(ticket) for ticket in [engine.submit(one) for one in requests]]
    for request, (outcome, texts) in zip(requests, together, strict=True):
        with _engine(model, tokenizer, prefill_chunk=1000) as engine:
            alone = engine.submit(request).outcome()
        assert _essence(outcome) == _essence(alone)
        for choice, blanks in enumerate(outcome.choices):
            for blank, answer in enumerate(blanks):
                assert texts[choice, blank] == answer.text
                other = alone.choices[choice][blank]
                assert answer.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert outcome.usage.prompt == alone.usage.prompt
        assert outcome.usage.completion == alone.usage.completion
        assert alone.usage.cached == 0


@pytest.mark.parametrize("kind", list(GenerationLayout))
def test_answers_equal_the_text_generators(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, kind: GenerationLayout
) -> None:
    model = build_model(seed=2, generation_layout=kind, position="rope")
    generator = TextGenerator(model, tokenizer)
    configs = [SamplingConfig(max_new_tokens=4 + 9 * i, temperature=0.4 * i) for i in range(4)]
    with _engine(model, tokenizer) as engine:
        texts = [*TEXTS[:3], "The [MASK] wraps [sMASK]" if engine.layout.has_blanks else TEXTS[3]]
        expected = generator.fill_batch(texts, configs)
        fields = [
            {"max_new_tokens": one.max_new_tokens, "temperature": one.temperature}
            for one in configs
        ]
        tickets = [
            engine.submit(ask(text, engine.layout, one))
            for text, one in zip(texts, fields, strict=True)
        ]
        for ticket, filled in zip(tickets, expected, strict=True):
            (found,) = ticket.outcome().choices
            assert [list(one.tokens) for one in found] == [one.tokens for one in filled.blanks]
            for one, blank in zip(found, filled.blanks, strict=True):
                assert one.logprob == pytest.approx(blank.logprob, abs=1e-3)
                assert one.finish_reason == blank.finish_reason


def test_usage_counts_what_an_earlier_request_has_read(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    with _engine(model, tokenizer) as engine:
        request = ask("The return statement ends a function; the value goes", engine.layout)
        first, again = (engine.submit(request).outcome() for _ in range(2))
    assert (first.usage.cached, again.usage.cached) == (0, first.usage.prompt - 1)
    assert _essence(first) == _essence(again)


def test_choices_share_one_reading_and_differ_by_their_seeds(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    model, columns = build_model(), list[int]()
    model.register_forward_pre_hook(lambda _, args: columns.append(args[0].shape[1]))
    with _engine(model, tokenizer) as engine:
        request = ask("The with", engine.layout, {"temperature": 1.5, "seed": 3}, choices=4)
        outcome = engine.submit(request).outcome()
    assert len({blanks[0].tokens for blanks in outcome.choices}) == 4
    assert sum(count for count in columns if count > 1) == outcome.usage.prompt


def test_prompt_logprobs_are_those_of_one_forward(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    with _engine(model, tokenizer) as engine:
        request = ask("The return statement ends a function", engine.layout, prompt_logprobs=3)
        engine.submit(request).outcome()
        outcome = engine.submit(request).outcome()
    ids = list(request.prompt.context_ids)
    with torch.no_grad():
        logprobs_TV = model.logits(model(torch.tensor([ids])))[0].log_softmax(dim=-1)
    found = outcome.prompt_logprobs
    assert found is not None and [one.token for one in found] == ids[1:]
    for row_V, one in zip(logprobs_TV, found, strict=False):
        assert one.logprob == pytest.approx(float(row_V[one.token]), abs=1e-4)
        assert one.top[0][0] == int(row_V[: tokenizer.vocab_size].argmax()) and len(one.top) == 3
    assert outcome.usage.cached == 0


def test_pieces_of_async_streams_join_to_the_answers(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    async def read(engine: Engine, request: EngineRequest) -> None:
        ticket = engine.submit(request)
        texts = ["", ""]
        async for piece in ticket:
            texts[piece.choice] += piece.text
        outcome = await ticket.aoutcome()
        assert texts == [blanks[0].text for blanks in outcome.choices]

    async def read_all(engine: Engine) -> None:
        requests = [ask(text, engine.layout, {"temperature": 1.0}, choices=2) for text in TEXTS]
        await asyncio.gather(*(read(engine, request) for request in requests))

    with _engine(build_model(), tokenizer) as engine:
        asyncio.run(read_all(engine))


def test_request_is_cancelled_when_its_iterator_is_left(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    with _engine(build_model(), tokenizer) as engine:
        ticket = engine.submit(ask("The", engine.layout, LONG))
        for _ in ticket:
            break
        with pytest.raises(RequestCancelled, match="the request was cancelled"):
            ticket.outcome()
        assert engine.stats().counters["cancelled"] == 1


def test_request_is_cancelled_when_its_task_is(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    async def leave(engine: Engine, wait: bool) -> None:
        ticket, begun = engine.submit(ask("The", engine.layout, LONG)), asyncio.Event()

        async def read() -> None:
            async for _ in ticket:
                begun.set()

        async def outcome() -> None:
            begun.set()
            await ticket.aoutcome()

        task = asyncio.create_task(outcome() if wait else read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RequestCancelled):
            await ticket.aoutcome()

    with _engine(build_model(), tokenizer) as engine:
        asyncio.run(leave(engine, wait=False))
        asyncio.run(leave(engine, wait=True))


def test_newest_request_of_a_client_wins(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    with _engine(build_model(), tokenizer, max_running=1) as engine:
        other = engine.submit(ask("The", engine.layout, client="b"))
        older = [
            engine.submit(ask(text, engine.layout, LONG, client="a", newest_wins=True))
            for text in TEXTS
        ]
        newest = engine.submit(ask("The", engine.layout, client="a", newest_wins=True))
        assert newest.outcome().choices and other.outcome().choices
        for ticket in older:
            with pytest.raises(RequestCancelled):
                ticket.outcome()


def test_request_is_given_up_when_its_time_is_over(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    with _engine(build_model(), tokenizer, max_running=1) as engine:
        tickets = [
            engine.submit(ask("The", engine.layout, LONG, timeout_s=1e-6, priority=i))
            for i in range(2)
        ]
        for ticket in tickets:
            with pytest.raises(RequestTimedOut, match="its timeout_s of 1e-06 seconds"):
                ticket.outcome()
        assert engine.stats().counters["timed_out"] == 2


def test_engine_is_busy_when_its_queue_is_full(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, held: Callable[..., Any]
) -> None:
    with _engine(build_model(), tokenizer, max_running=1, max_queued=2) as engine, held(engine):
        request = ask("The", engine.layout)
        tickets = [engine.submit(request) for _ in range(2)]
        with pytest.raises(EngineBusy, match=r"2 requests are waiting; try again in \d+ s") as busy:
            engine.submit(request)
        assert 1 <= busy.value.retry_after_s <= 60
        assert engine.stats().counters["refused"] == 1
        assert not any(ticket.is_done for ticket in tickets)


def test_engine_is_busy_when_the_queue_holds_too_many_tokens(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, held: Callable[..., Any]
) -> None:
    limits = {"max_running": 1, "max_queued_tokens": 100}
    with _engine(build_model(), tokenizer, **limits) as engine, held(engine):
        engine.submit(ask("The", engine.layout, LONG))
        with pytest.raises(EngineBusy, match=r"requests of \d\d tokens are waiting"):
            engine.submit(ask("The", engine.layout, LONG))


def test_bad_requests_are_refused_before_they_wait(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    with _engine(build_model(), tokenizer, cache_bytes=2 * 65536) as engine:
        layout = engine.layout
        faults: dict[str, Callable[[], EngineRequest]] = {
            "shorten it by at least": lambda: ask("The value " * 60, layout),
            "sampling.num_beams is 2: it must be 1 in": lambda: ask("A", layout, {"num_beams": 2}),
            "choices is 0: it must be at least 1": lambda: ask("A", layout, choices=0),
            "choices is 6: it must be at most 5": lambda: ask("A", layout, choices=6),
            "pages of the cache, which has 2": lambda: ask("A", layout, choices=5),
            "logprobs is -1": lambda: ask("A", layout, logprobs=-1),
            "prompt_logprobs is 0: it must be None": lambda: ask("A", layout, prompt_logprobs=0),
            "timeout_s is 0: it must be above 0": lambda: ask("A", layout, timeout_s=0),
            "name the client when newest_wins": lambda: ask("A", layout, newest_wins=True),
            "regular expression cannot be used": lambda: ask("A", layout, grammar=Regex("(")),
            "sampling.stop_token_ids names the id": lambda: ask(
                "A", layout, {"stop_token_ids": [10**6]}
            ),
        }
        for message, request in faults.items():
            with pytest.raises(ValueError, match=message):
                engine.submit(request())
        assert engine.stats().counters["submitted"] == 0


def test_only_the_guilty_request_fails_when_a_step_raises(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model()
    guilty = tokenizer.encode("é")[-1]
    with _engine(model, tokenizer) as engine:
        requests = [ask(text, engine.layout, {"max_new_tokens": 20}) for text in TEXTS]
        alone = [engine.submit(request).outcome() for request in requests]
        step, forced = engine.runner.step, {"logit_bias": {guilty: 100.0}}

        def failing(works: Any) -> Any:
            if any(guilty in work.ids for work in works):
                raise RuntimeError("out of luck")
            return step(works)

        monkeypatch.setattr(engine.runner, "step", failing)
        tickets = [engine.submit(request) for request in requests]
        bad = engine.submit(ask("The with", engine.layout, forced))
        with pytest.raises(RequestFailed, match="the request failed: out of luck") as failed:
            bad.outcome()
        assert isinstance(failed.value.cause, RuntimeError)
        assert [_essence(one.outcome()) for one in tickets] == [_essence(one) for one in alone]
        assert engine.stats().counters["failed"] == 1


def test_request_fails_alone_when_its_token_cannot_be_chosen(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = Sampler.choose

    def failing(sampler: Sampler, *args: Any) -> TokenLogprob:
        if sampler.config.seed == 7:
            raise ValueError("no token can come next")
        return choose(sampler, *args)

    monkeypatch.setattr(Sampler, "choose", failing)
    with _engine(build_model(), tokenizer) as engine:
        drawn = {"temperature": 1.0}
        tickets = [
            engine.submit(ask("The", engine.layout, {**drawn, "seed": seed}, choices=2))
            for seed in (6, 7)
        ]
        assert len(tickets[0].outcome().choices) == 2
        with pytest.raises(RequestFailed, match="no token can come next"):
            tickets[1].outcome()


def test_everybody_is_told_when_the_engine_itself_fails(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(build_model(), tokenizer, config=SMALL) as engine:
        request = ask("The", engine.layout, LONG)

        def broken() -> None:
            raise MemoryError("no more")

        monkeypatch.setattr(engine._scheduler, "_start", broken)
        ticket = engine.submit(request)
        with pytest.raises(EngineFailed, match="the engine has stopped: MemoryError"):
            ticket.outcome()
        with pytest.raises(EngineFailed, match="has stopped"):
            engine.submit(request)
        with pytest.raises(EngineFailed, match="has stopped"):
            engine.embed([[1]])
        assert not engine.drain()


def test_drain_finishes_what_was_submitted_and_takes_nothing_new(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, held: Callable[..., Any]
) -> None:
    with Engine(build_model(), tokenizer, config=SMALL) as engine:
        request = ask("The", engine.layout)
        with held(engine):
            tickets = [engine.submit(request) for _ in range(8)]
            results: list[bool] = []
            drainer = threading.Thread(target=lambda: results.append(engine.drain()))
            drainer.start()
            with pytest.raises(EngineDraining, match="shutting down") as draining:
                while True:  # until the other thread has begun
                    tickets.append(engine.submit(replace(request, priority=1)))
            assert draining.value.retry_after_s > 0
        drainer.join()
        assert results == [True]
        assert all(ticket.outcome().choices for ticket in tickets)


def test_drain_cancels_what_is_left_when_its_time_is_over(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, held: Callable[..., Any]
) -> None:
    with Engine(build_model(), tokenizer, config=SMALL) as engine:
        results: list[bool] = []
        drainer = threading.Thread(target=lambda: results.append(engine.drain(timeout_s=0.0)))
        with held(engine):
            ticket = engine.submit(ask("The", engine.layout, LONG))
            drainer.start()
            while not engine._is_closing:
                time.sleep(0)
        drainer.join()
        assert results == [False]
        with pytest.raises(RequestCancelled, match="the engine was closed"):
            ticket.outcome()
        assert engine.stats().pages_used == 0


def test_vectors_are_those_of_the_runner_when_answers_are_written_too(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask
) -> None:
    with _engine(build_model(), tokenizer) as engine:
        texts = [tokenizer.encode(text) for text in TEXTS]
        answering = engine.submit(ask("The", engine.layout))
        vectors_ND = engine.embed(texts).outcome()
        answering.outcome()
        expected = torch.stack([engine.runner.embed(ids) for ids in texts])
        assert torch.equal(vectors_ND, expected)
        torch.testing.assert_close(vectors_ND.norm(dim=-1), torch.ones(len(texts)))
        for bad, message in (([], "at least one"), ([[]], "has 0 tokens"), ([[-1]], "outside")):
            with pytest.raises(ValueError, match=message):
                engine.embed(bad)
