"""The engine: requests come and go as they like, and leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.answer import FinishReason
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
)
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler
from glm_core.model import GenerationLayout, Transformer
from glm_core.testing import randomize
from glm_core.tokenizer import ByteBPETokenizer
from glm_core.tune.prefix import PrefixEncoder
from glm_core.tune.prefix_file import save_prefix

Build = Callable[..., Transformer]
Ask = Callable[..., EngineRequest]
OpenEngine = Callable[..., AbstractContextManager[Engine]]
TEXTS = ["The with statement", "A", "context manager enters and leaves it. The", "größe"]
LONG = {"max_new_tokens": 60, "min_new_tokens": 60}
SMALL = EngineConfig(max_running=5, prefill_chunk=7)


def _essence(outcome: Outcome) -> Any:
    return [
        [(one.text, one.tokens, one.finish_reason, one.stop_id, one.marker) for one in blanks]
        for blanks in outcome.choices
    ]


def test_pieces_of_async_streams_join_to_the_answers(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
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

    with open_engine(build_model(), tokenizer) as engine:
        asyncio.run(read_all(engine))


def test_request_is_cancelled_when_its_iterator_is_left(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    with open_engine(build_model(), tokenizer) as engine:
        ticket = engine.submit(ask("The", engine.layout, LONG))
        for _ in ticket:
            break
        with pytest.raises(RequestCancelled, match="the request was cancelled"):
            ticket.outcome()
        assert engine.stats().counters["cancelled"] == 1


def test_request_is_cancelled_when_its_task_is(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
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

    with open_engine(build_model(), tokenizer) as engine:
        asyncio.run(leave(engine, wait=False))
        asyncio.run(leave(engine, wait=True))


def test_newest_request_of_a_client_wins(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    with open_engine(build_model(), tokenizer, max_running=1) as engine:
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


def test_newest_request_takes_the_place_of_an_older_one_in_a_full_queue(
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    held: Callable[..., Any],
) -> None:
    with open_engine(build_model(), tokenizer, max_queued=1) as engine:
        with held(engine):
            older = engine.submit(ask("The", engine.layout, client="a"))
            newest = engine.submit(ask("A", engine.layout, client="a", newest_wins=True))
        assert newest.outcome().choices
        with pytest.raises(RequestCancelled):
            older.outcome()


def test_request_is_given_up_when_its_time_is_over(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    with open_engine(build_model(), tokenizer, max_running=1) as engine:
        tickets = [
            engine.submit(ask("The", engine.layout, LONG, timeout_s=1e-6, priority=i))
            for i in range(2)
        ]
        for ticket in tickets:
            with pytest.raises(RequestTimedOut, match="its timeout_s of 1e-06 seconds"):
                ticket.outcome()
        assert engine.stats().counters["timed_out"] == 2


def test_engine_is_busy_when_its_queue_is_full(
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    held: Callable[..., Any],
) -> None:
    with open_engine(build_model(), tokenizer, max_running=1, max_queued=2) as engine, held(engine):
        request = ask("The", engine.layout)
        tickets = [engine.submit(request) for _ in range(2)]
        with pytest.raises(EngineBusy, match=r"2 requests are waiting; try again in \d+ s") as busy:
            engine.submit(request)
        assert 1 <= busy.value.retry_after_s <= 60
        assert engine.stats().counters["refused"] == 1
        assert not any(ticket.is_done for ticket in tickets)


def test_engine_is_busy_when_the_queue_holds_too_many_tokens(
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    held: Callable[..., Any],
) -> None:
    limits = {"max_running": 1, "max_queued_tokens": 100}
    with open_engine(build_model(), tokenizer, **limits) as engine, held(engine):
        engine.submit(ask("The", engine.layout, LONG))
        with pytest.raises(EngineBusy, match=r"requests of \d\d tokens are waiting"):
            engine.submit(ask("The", engine.layout, LONG))


def test_only_the_guilty_request_fails_when_a_step_raises(
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build_model()
    guilty = tokenizer.encode("é")[-1]
    with open_engine(model, tokenizer) as engine:
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
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose = Sampler.choose

    def failing(sampler: Sampler, *args: Any) -> TokenLogprob:
        if sampler.config.seed == 7:
            raise ValueError("no token can come next")
        return choose(sampler, *args)

    monkeypatch.setattr(Sampler, "choose", failing)
    with open_engine(build_model(), tokenizer) as engine:
        drawn = {"temperature": 1.0}
        tickets = [
            engine.submit(ask("The", engine.layout, {**drawn, "seed": seed}, choices=2))
            for seed in (6, 7)
        ]
        assert len(tickets[0].outcome().choices) == 2
        with pytest.raises(RequestFailed, match="no token can come next"):
            tickets[1].outcome()


def test_everybody_is_told_when_the_engine_itself_fails(
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
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
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    held: Callable[..., Any],
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
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    held: Callable[..., Any],
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
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    with open_engine(build_model(), tokenizer) as engine:
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
        counters = engine.stats().counters
        assert counters["submitted"] == counters["finished"] == 2


def test_adapter_of_each_request_is_its_own(
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    tmp_path: Path,
) -> None:
    expected, kind = {}, GenerationLayout.causal
    for seed, name in enumerate(("", "one", "two")):
        model = build_model(generation_layout=kind)
        if name:
            model.prefix = PrefixEncoder(model.config, 2 + seed)
            randomize(model.prefix, seed)
            save_prefix(model, tmp_path / name / "model.safetensors")
        (expected[name],) = TextGenerator(model, tokenizer).generate("The", SamplingConfig())
    with open_engine(build_model(generation_layout=kind), tokenizer) as engine:
        for name in ("one", "two"):
            engine.add_adapter(name, tmp_path / name)
        assert engine.adapters == ("one", "two")
        tickets = {
            name: engine.submit(ask("The", engine.layout, {"max_new_tokens": 64}, adapter=name))
            for name in expected
        }
        for name, ticket in tickets.items():
            ((found,),) = ticket.outcome().choices
            assert list(found.tokens) == expected[name].tokens
        with pytest.raises(ValueError, match="adapter 'three' is unknown: this engine has one, tw"):
            engine.submit(ask("The", engine.layout, adapter="three"))
    assert len({tuple(one.tokens) for one in expected.values()}) == 3


def test_answer_ends_where_its_watcher_has_enough(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    seen: dict[int, list[str]] = {0: [], 1: []}

    def watch(choice: int) -> Callable[[str], bool]:
        def is_enough(text: str) -> bool:
            seen[choice].append(text)
            return len(seen[choice]) == 3 + choice

        return is_enough

    drawn = {**LONG, "temperature": 1.0, "stop": ["never comes"]}
    with open_engine(build_model(), tokenizer) as engine:
        outcome = engine.submit(ask("The", engine.layout, drawn, choices=2, watch=watch)).outcome()
        tokens = engine.stats().counters["completion_tokens"]
    for choice, (answer,) in enumerate(outcome.choices):
        assert answer.finish_reason is FinishReason.stopped
        assert answer.text.startswith("".join(seen[choice]))
        assert len(seen[choice]) == 3 + choice
    assert tokens == outcome.usage.completion < 60


def test_watcher_that_fails_ends_its_request_alone(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    def fail(text: str) -> bool:
        raise KeyError(text)

    with open_engine(build_model(), tokenizer) as engine:
        bad = engine.submit(ask("The", engine.layout, LONG, watch=lambda choice: fail))
        good = engine.submit(ask("The", engine.layout))
        with pytest.raises(RequestFailed, match="the request failed"):
            bad.outcome()
        assert good.outcome().choices
