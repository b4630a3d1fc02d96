"""A guess of the answer makes it come sooner, and changes nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest

from glm_core.infer import Begins
from glm_core.infer.engine import Engine, EngineRequest, Outcome
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
Ask = Callable[..., EngineRequest]
OpenEngine = Callable[..., AbstractContextManager[Engine]]
TOKENS = 40
EXACTLY = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}


def _essence(outcome: Outcome) -> Any:
    return [
        [(one.text, one.tokens, one.finish_reason, one.stop_id) for one in blanks]
        for blanks in outcome.choices
    ]


def _steps(engine: Engine, request: EngineRequest) -> tuple[Outcome, int]:
    before = engine.stats().counters["steps"]
    outcome = engine.submit(request).outcome()
    return outcome, engine.stats().counters["steps"] - before


def _with_wrong_token(tokens: Sequence[int], at: int) -> tuple[int, ...]:
    return (*tokens[:at], 1 + tokens[at] % 60, *tokens[at + 1 :])


@pytest.mark.parametrize("head_dim", [8, 16])
@pytest.mark.parametrize(
    ("sampling", "fields"),
    [
        ({}, {}),
        ({"temperature": 1.0, "seed": 5}, {}),
        ({"repetition_penalty": 1.3, "frequency_penalty": 0.5}, {"logprobs": 2}),
        ({}, {"grammar": Begins(b"The ")}),
    ],
)
def test_answer_is_the_same_in_fewer_steps_when_it_was_guessed(
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    sampling: dict[str, Any],
    fields: dict[str, Any],
    head_dim: int,
) -> None:
    model = build_model(
        generation_layout=GenerationLayout.causal, head_dim=head_dim, max_position_embeddings=192
    )
    with open_engine(model, tokenizer) as engine:
        request = ask("A context manager", engine.layout, {**EXACTLY, **sampling}, **fields)
        expected, num_steps = _steps(engine, request)
        assert num_steps >= TOKENS
        (answer,) = expected.choices[0]
        for draft, most in (
            (answer.tokens, 8),
            (answer.tokens[:20], 28),
            ((*answer.tokens, 7, 7, 7), 8),
            (_with_wrong_token(answer.tokens, 30), 20),
            (_with_wrong_token(answer.tokens, 0), TOKENS + 2),
            ((9,) * 100, TOKENS + 2),
        ):
            outcome, num_steps = _steps(engine, replace(request, draft=draft))
            assert _essence(outcome) == _essence(expected)
            assert num_steps <= most
            for one, other in zip(outcome.choices[0][0].logprobs, answer.logprobs, strict=True):
                # worst measured: 2.8e-6
                assert one.logprob == pytest.approx(other.logprob, abs=2e-5)


def test_answer_is_the_same_when_it_ends_inside_the_guess(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    with open_engine(model, tokenizer) as engine:
        free = engine.submit(ask("A", engine.layout, EXACTLY)).outcome()
        tokens = free.choices[0][0].tokens
        for sampling, fields in (
            ({"max_new_tokens": TOKENS, "stop_token_ids": [tokens[9]]}, {}),
            ({"max_new_tokens": TOKENS, "stop": [tokenizer.decode(tokens[8:11])]}, {}),
            ({"max_new_tokens": 7}, {}),
            (EXACTLY, {"watch": lambda choice: lambda text: True}),
        ):
            request = ask("A", engine.layout, sampling, **fields)
            expected = engine.submit(request).outcome()
            outcome = engine.submit(replace(request, draft=tokens)).outcome()
            assert _essence(outcome) == _essence(expected)


def test_answers_are_the_same_when_a_request_has_several_or_several_blanks(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    sampling = {"max_new_tokens": 9, "temperature": 1.0, "seed": 3}
    for kind, text in (
        (GenerationLayout.causal, "The value"),
        (GenerationLayout.blank, "The [MASK] wraps [sMASK]"),
    ):
        with open_engine(build_model(generation_layout=kind), tokenizer) as engine:
            request = ask(text, engine.layout, sampling, choices=3)
            expected = engine.submit(request).outcome()
            draft = expected.choices[1][0].tokens
            outcome = engine.submit(replace(request, draft=draft)).outcome()
            assert _essence(outcome) == _essence(expected)
