"""The engine: many requests at once answer as each alone, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.blanks import blank_prompt, continuation_prompt
from glm_core.infer.engine import (
    Engine,
    EngineConfig,
    EngineRequest,
    RequestCancelled,
)
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
TEXTS = ["The with statement", "A", "context manager enters and leaves it. The", "größe"]


@pytest.mark.parametrize("layout", [GenerationLayout.causal, GenerationLayout.blank])
def test_answers_equal_the_generators_when_requests_come_together(
    build_model: Build, tokenizer: ByteBPETokenizer, layout: GenerationLayout
) -> None:
    model = build_model(generation_layout=layout)
    generator = TextGenerator(model, tokenizer)
    configs = [SamplingConfig(max_new_tokens=4 + 3 * i) for i in range(len(TEXTS))]
    expected = generator.generate(TEXTS, configs)
    with Engine(model, tokenizer, config=EngineConfig(max_running=3, prefill_chunk=5)) as engine:
        tickets = [
            engine.submit(
                EngineRequest(
                    prompt=continuation_prompt(text, tokenizer, engine.layout), sampling=config
                )
            )
            for text, config in zip(TEXTS, configs, strict=True)
        ]
        outcomes = [ticket.outcome() for ticket in tickets]
    assert [list(one.choices[0][0].tokens) for one in outcomes] == [one.tokens for one in expected]
    assert [one.choices[0][0].finish_reason for one in outcomes] == [
        one.finish_reason for one in expected
    ]


def test_pieces_of_an_async_stream_join_to_the_answer(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    with Engine(build_model(), tokenizer) as engine:
        prompt = blank_prompt("The [MASK] wraps [sMASK]", tokenizer, engine.layout)
        config = SamplingConfig(max_new_tokens=6, temperature=1.0)
        request = EngineRequest(prompt=prompt, sampling=config, choices=2)

        async def read() -> None:
            ticket = engine.submit(request)
            texts: dict[tuple[int, int], str] = {}
            ends = {}
            async for piece in ticket:
                key = piece.choice, piece.blank
                texts[key] = texts.get(key, "") + piece.text
                if piece.end is not None:
                    ends[key] = piece.end
            outcome = await ticket.aoutcome()
            for choice, blanks in enumerate(outcome.choices):
                for blank, answer in enumerate(blanks):
                    assert ends[choice, blank] == answer
                    assert texts[choice, blank] == answer.text

        asyncio.run(read())


def test_leaving_the_iterator_cancels(build_model: Build, tokenizer: ByteBPETokenizer) -> None:
    with Engine(build_model(), tokenizer) as engine:
        prompt = continuation_prompt("The", tokenizer, engine.layout)
        config = SamplingConfig(max_new_tokens=60, min_new_tokens=60)
        ticket = engine.submit(EngineRequest(prompt=prompt, sampling=config))
        for _ in ticket:
            break
        with pytest.raises(RequestCancelled, match="cancelled"):
            ticket.outcome()
        assert engine.drain()
        assert engine.stats().pages_used == 0
