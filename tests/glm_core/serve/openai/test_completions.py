"""Completions over HTTP: prompts of all kinds, several answers, blanks, log-probabilities."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest

from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.choices import seed_of_choice
from glm_core.serve.models import ServedModel

TINY = "org/tiny"
TEXT = "The with statement wraps"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 6}


def _generator(served: ServedModel) -> TextGenerator:
    return TextGenerator(served.engine.model, served.engine.tokenizer)


def _alone(served: ServedModel, text: str, **changes: Any) -> str:
    config = SamplingConfig(**{"max_new_tokens": 6} | changes)
    return _generator(served).generate(text, config)[0].text


@pytest.mark.parametrize("index", [0, 1])
def test_text_goes_on_as_with_the_model_alone(
    client: openai.OpenAI, models: list[ServedModel], index: int
) -> None:
    served = models[index]
    reply = client.completions.create(model=served.name, prompt=TEXT, **GREEDY)
    alone = _generator(served).generate(TEXT, SamplingConfig(max_new_tokens=6))[0]
    assert reply.choices[0].text == alone.text
    assert reply.usage and reply.usage.completion_tokens == len(alone.tokens)
    is_long = alone.finish_reason == "max_new_tokens"
    assert reply.choices[0].finish_reason == ("length" if is_long else "stop")


def test_prompts_are_answered_in_their_order(
    client: openai.OpenAI, models: list[ServedModel]
) -> None:
    prompts = [TEXT, "A list is", "import "]
    expected = [_alone(models[0], one) for one in prompts]
    reply = client.completions.create(model="nano-text", prompt=prompts, **GREEDY)
    assert [choice.text for choice in reply.choices] == expected
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    texts = ["", "", ""]
    for chunk in client.completions.create(
        model="nano-text", prompt=prompts, stream=True, **GREEDY
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected


@pytest.mark.parametrize("index", [0, 1])
def test_tokens_are_a_prompt_too(
    client: openai.OpenAI, models: list[ServedModel], index: int
) -> None:
    served = models[index]
    ids = served.tokenizer.encode(TEXT)
    frame = [] if index == 0 else served.layout.frame([], served.tokenizer)
    one = client.completions.create(model=served.name, prompt=[*frame, *ids], **GREEDY)
    two = client.completions.create(model=served.name, prompt=[[*frame, *ids]] * 2, **GREEDY)
    text = client.completions.create(model=served.name, prompt=TEXT, **GREEDY).choices[0].text
    assert [choice.text for choice in (*one.choices, *two.choices)] == [text] * 3


def test_answers_have_seeds_of_their_own(client: openai.OpenAI, models: list[ServedModel]) -> None:
    reply = client.completions.create(
        model="nano-text", prompt=TEXT, n=3, seed=5, temperature=1, max_tokens=6
    )
    expected = [_alone(models[0], TEXT, temperature=1, seed=seed_of_choice(5, i)) for i in range(3)]
    assert [choice.text for choice in reply.choices] == expected


def test_best_answers_come_first_when_more_are_made(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "nano-text",
        "prompt": TEXT,
        "seed": 5,
        "temperature": 1,
        "max_tokens": 6,
        "logprobs": 0,
        "stop": "☃",
    }
    every = client.completions.create(**asked, n=5).choices
    best = client.completions.create(**asked, n=2, best_of=5)
    means = {}
    for choice in every:
        assert choice.logprobs is not None and choice.finish_reason == "length"
        numbers = [number or 0 for number in choice.logprobs.token_logprobs or []]
        means[choice.text] = sum(numbers) / len(numbers)
    expected = sorted(means, key=lambda text: -means[text])[:2]
    assert [choice.text for choice in best.choices] == expected
    assert best.usage and best.usage.completion_tokens == 30


def test_logprobs_have_offsets_into_the_text(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="nano-text", prompt=TEXT, logprobs=2, **GREEDY)
    choice = reply.choices[0]
    told = choice.logprobs
    assert told is not None and told.tokens and told.text_offset and told.top_logprobs
    assert told.token_logprobs is not None
    assert "".join(told.tokens) == choice.text
    assert [
        choice.text[at:].startswith(t) for t, at in zip(told.tokens, told.text_offset, strict=True)
    ]
    for token, logprob, top in zip(
        told.tokens, told.token_logprobs, told.top_logprobs, strict=True
    ):
        assert len(top) == 2 and top[token] == logprob == max(top.values())


def test_prompt_is_scored_when_it_is_echoed_and_nothing_more_is_wanted(
    client: openai.OpenAI, models: list[ServedModel]
) -> None:
    tokenizer = models[1].tokenizer
    reply = client.completions.create(
        model=TINY, prompt="Hello you", echo=True, max_tokens=0, logprobs=1
    )
    choice = reply.choices[0]
    assert choice.text == "Hello you" and choice.finish_reason == "length"
    assert choice.logprobs and choice.logprobs.tokens and choice.logprobs.token_logprobs
    assert "".join(choice.logprobs.tokens) == "Hello you"
    assert len(choice.logprobs.tokens) == len(tokenizer.encode("Hello you"))
    assert all(number is None or number <= 0 for number in choice.logprobs.token_logprobs)
    assert reply.usage and reply.usage.completion_tokens == 0
    whole = client.completions.create(
        model=TINY, prompt="Hello you", echo=True, max_tokens=2, logprobs=1, temperature=0
    ).choices[0]
    assert whole.logprobs and whole.logprobs.tokens
    assert whole.logprobs.tokens[:-2] == choice.logprobs.tokens
    assert whole.logprobs.token_logprobs is not None
    assert whole.logprobs.token_logprobs[:-2] == pytest.approx(choice.logprobs.token_logprobs)


def test_prompt_stands_before_the_answer_when_it_is_echoed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "nano-text", "prompt": TEXT, **GREEDY}
    plain = client.completions.create(**asked).choices[0].text
    assert client.completions.create(**asked, echo=True).choices[0].text == TEXT + plain
    stream = client.completions.create(**asked, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == TEXT + plain


def test_text_between_two_is_written_when_there_is_a_suffix(
    client: openai.OpenAI, models: list[ServedModel]
) -> None:
    filled = _generator(models[0]).fill(
        "The [MASK] statement wraps a block.", SamplingConfig(max_new_tokens=6)
    )
    reply = client.completions.create(
        model="nano-text", prompt="The ", suffix=" statement wraps a block.", **GREEDY
    )
    assert reply.choices[0].text == filled.blanks[0].text.removeprefix(" ")
    with pytest.raises(openai.BadRequestError, match="causal and cannot look at what follows"):
        client.completions.create(model=TINY, prompt="a", suffix="b")


def test_blanks_are_filled_only_when_asked_for(
    client: openai.OpenAI, models: list[ServedModel]
) -> None:
    text = "The [MASK] statement wraps a [MASK] of code."
    asked: dict[str, Any] = {"model": "nano-text", "prompt": text, **GREEDY}
    filled = _generator(models[0]).fill(text, SamplingConfig(max_new_tokens=6))
    choice = client.completions.create(**asked, extra_body={"fill": True}).choices[0]
    assert choice.text == filled.text
    blanks: list[Any] = choice.blanks  # type: ignore[attr-defined]
    assert [(one["marker"], one["text"], one["start"]) for one in blanks] == [
        (one.marker, one.text, one.start) for one in filled.blanks
    ]
    parts = {0: "", 1: ""}
    for chunk in client.completions.create(**asked, stream=True, extra_body={"fill": True}):
        parts[chunk.choices[0].blank] += chunk.choices[0].text  # type: ignore[attr-defined]
    assert list(parts.values()) == [one.text for one in filled.blanks]
    plain = client.completions.create(**asked).choices[0].text
    assert plain == _alone(models[0], text)


def test_answer_is_held_to_a_schema_when_one_is_given(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    reply = client.completions.create(
        model=TINY,
        prompt="a",
        max_tokens=90,
        seed=1,
        logit_bias={str(ord(" ")): -100, str(ord("\n")): -100, str(256 + 3): -100},
        extra_body={"response_format": format},
    )
    assert reply.choices[0].text in ('{"a":1}', '{"a":2}')


def test_async_client_gets_what_the_other_gets(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "nano-text", "prompt": TEXT, **GREEDY}
    expected = client.completions.create(**asked).choices[0].text

    async def both() -> tuple[str, str]:
        url = str(client.base_url)
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as other:
            whole = await other.completions.create(**asked)
            stream = await other.completions.create(**asked, stream=True)
            text = "".join([chunk.choices[0].text async for chunk in stream])
        return whole.choices[0].text, text

    assert asyncio.run(both()) == (expected, expected)


@pytest.mark.parametrize(
    ("changes", "param", "reason"),
    [
        ({"prompt": []}, "prompt", "0 prompts"),
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": ["a", ""]}, "prompt", "is empty"),
        ({"prompt": [10**6]}, "prompt", "ids lie between"),
        ({"prompt": [[]]}, "prompt", "is empty"),
        ({"prompt": 5}, "prompt", "valid string"),
        ({"prompt": None}, "prompt", "valid string"),
        ({"best_of": 1, "n": 2}, "best_of", "at least n"),
        ({"best_of": 3, "n": 2, "stream": True}, "best_of", "a stream cannot choose"),
        ({"max_tokens": 0}, "max_tokens", "at least 1, unless echo"),
        ({"max_tokens": 0, "echo": True, "stream": True}, "stream", "nothing to stream"),
        ({"echo": True, "logprobs": 1, "stream": True}, "logprobs", "without stream"),
        ({"echo": True, "logprobs": 1}, "logprobs", "sees the whole prompt"),
        ({"logprobs": 6}, "logprobs", "less than or equal to 5"),
        ({"suffix": "b", "echo": True}, "echo", "contradicts suffix"),
        ({"suffix": "b", "prompt": ["a", "c"]}, "suffix", "one by one"),
        ({"suffix": "b", "prompt": [1]}, "suffix", "goes with a text"),
        ({"fill": True, "suffix": "b"}, "fill", "contradicts suffix"),
        ({"fill": True, "logprobs": 1}, "logprobs", "not given with fill"),
        ({"fill": True, "prompt": "[tMASK]"}, "prompt", "unknown marker"),
        ({"fill": True, "prompt": [1, 2]}, "fill", "the prompt is tokens"),
        ({"prompt": "word " * 1100}, "prompt", "context holds 1024"),
        ({"prompt": "word " * 10**6}, "prompt", "5,000,000 characters"),
        ({"prompt": "a", "suffix": "b" * 10**6}, "prompt", "1,000,000 characters"),
        ({"prompt": [1.5] * 10**6}, "prompt", "valid string"),
        ({"stop_token_ids": [10**7]}, "stop_token_ids", "names the id"),
    ],
)
def test_request_is_refused_when_a_field_is_wrong(
    http: httpx2.Client, changes: dict[str, Any], param: str, reason: str
) -> None:
    reply = http.post("/v1/completions", json={"model": "nano-text", "prompt": "a"} | changes)
    error = reply.json()["error"]
    assert reply.status_code == 400, error
    assert (error["type"], error["param"]) == ("invalid_request_error", param), error
    assert reason in error["message"]


def test_blank_cannot_be_filled_when_the_model_is_causal(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="this model is causal"):
        client.completions.create(model=TINY, prompt="a [MASK]", extra_body={"fill": True})
