"""Requests that come together are answered as each alone, whatever they ask for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from glm_core.infer import Begins, Choices, Regex, SamplingConfig, TextGenerator
from glm_core.infer.blanks import ids_prompt
from glm_core.infer.engine import (
    Engine,
    EngineRequest,
    Outcome,
    Ticket,
)
from glm_core.infer.layout import Layout
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
Ask = Callable[..., EngineRequest]
OpenEngine = Callable[..., AbstractContextManager[Engine]]
TEXTS = ["The with statement", "A", "context manager enters and leaves it. The", "größe"]


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
        ask("The with", layout, drawn, grammar=Begins(" größe".encode()), choices=2),
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
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    kind: GenerationLayout,
) -> None:
    model = build_model(generation_layout=kind, position="rope" if "1d" in kind else "rope_2d")
    with open_engine(model, tokenizer) as engine:
        requests = _kinds(ask, tokenizer, engine.layout)
        together = [_joined(ticket) for ticket in [engine.submit(one) for one in requests]]
    for request, (outcome, texts) in zip(requests, together, strict=True):
        with open_engine(model, tokenizer, prefill_chunk=1000) as engine:
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
    build_model: Build,
    tokenizer: ByteBPETokenizer,
    ask: Ask,
    open_engine: OpenEngine,
    kind: GenerationLayout,
) -> None:
    model = build_model(seed=2, generation_layout=kind, position="rope")
    generator = TextGenerator(model, tokenizer)
    configs = [SamplingConfig(max_new_tokens=4 + 9 * i, temperature=0.4 * i) for i in range(4)]
    with open_engine(model, tokenizer) as engine:
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
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    with open_engine(model, tokenizer) as engine:
        request = ask("The return statement ends a function; the value goes", engine.layout)
        first, again = (engine.submit(request).outcome() for _ in range(2))
    assert (first.usage.cached, again.usage.cached) == (0, first.usage.prompt - 1)
    assert _essence(first) == _essence(again)


def test_choices_share_one_reading_and_differ_by_their_seeds(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    model, columns = build_model(), list[int]()
    model.register_forward_pre_hook(lambda _, args: columns.append(args[0].shape[1]))
    with open_engine(model, tokenizer) as engine:
        request = ask("The with", engine.layout, {"temperature": 1.5, "seed": 3}, choices=4)
        outcome = engine.submit(request).outcome()
    assert len({blanks[0].tokens for blanks in outcome.choices}) == 4
    assert sum(count for count in columns if count > 1) == outcome.usage.prompt


def test_prompt_logprobs_are_those_of_one_forward(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    with open_engine(model, tokenizer) as engine:
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
