"""Chats over HTTP, as OpenAI's own client holds them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import httpx2
import numpy as np
import openai
import pytest
from pydantic import BaseModel
from torch import Tensor

from glm_core.chat import Message, Role
from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler
from glm_core.serve.models import ServedModel

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TINY = "org/tiny"
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "北京"]}}, "required": ["city"]}
CITY["additionalProperties"] = False
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "clock", "description": "Tells the time"}},
]
Script = Callable[[list[int]], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, models: list[ServedModel]) -> Script:
    """Returns a function that decides what the models will write, in place of chance."""
    tokens: list[int] = []
    while any(model.engine.stats().running for model in models):
        time.sleep(0.005)  # what another test has cancelled would take the first token

    def choose(
        sampler: Sampler, logits_V: Tensor, seen: Sequence[int], num: int, grammar: Any
    ) -> TokenLogprob:
        allowed = sampler.restrict(logits_V.float().numpy(), seen, num, grammar)
        assert np.isfinite(allowed[tokens[0]]), "the sampler would never choose this token"
        return TokenLogprob(tokens.pop(0), -0.5)

    monkeypatch.setattr(Sampler, "choose", choose)
    return tokens.extend


def _said(model: ServedModel, *texts: str) -> list[int]:
    """Returns tokens; `<|...|>` alone is a special one."""
    ids: list[int] = []
    for text in texts:
        is_special = model.tokenizer.has(text)
        ids += [model.tokenizer.token_id(text)] if is_special else model.tokenizer.encode(text)
    return ids


@pytest.mark.parametrize("model", ["nano-text", TINY])
def test_answer_equals_that_of_the_model_alone_when_greedy(
    client: openai.OpenAI, models: list[ServedModel], model: str
) -> None:
    served = next(one for one in models if one.name == model)
    format, engine = served.chat_format, served.engine
    context = format.encode([Message(Role.user, "Hello")], served.tokenizer)
    sampling = SamplingConfig(max_new_tokens=12, stop=list(format.stop))
    stream = TextGenerator(engine.model, engine.tokenizer).stream_ids(
        context, sampling, format.marks(served.tokenizer)
    )
    expected = "".join(piece.text for piece in stream).strip()
    reply = client.chat.completions.create(
        model=model, messages=HELLO, temperature=0, max_completion_tokens=12
    )
    assert reply.choices[0].message.content == expected
    assert reply.choices[0].message.role == "assistant"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (
        len(context) + len(engine.layout.opening(engine.tokenizer)),
        len(stream.tokens),
    )


def test_stream_gives_the_same_as_the_whole_answer(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "nano-text",
        "messages": [{"role": "system", "content": "You explain Python."}, *HELLO],
        "max_tokens": 24,
        "seed": 7,
        "n": 2,
    }
    whole = client.chat.completions.create(**asked)
    texts = ["", ""]
    roles, reasons, usages = [], [], []
    for chunk in client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert roles == ["assistant"] * 2
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usages[:-1] == [None] * (len(usages) - 1)
    assert usages[-1] and whole.usage
    assert usages[-1].completion_tokens == whole.usage.completion_tokens


def test_seeds_decide_the_answer(client: openai.OpenAI) -> None:
    def answer_of(**changes: Any) -> str | None:
        reply = client.chat.completions.create(
            model=TINY, messages=HELLO, max_tokens=12, temperature=1, top_p=1, **changes
        )
        return reply.choices[0].message.content

    assert answer_of(seed=1) == answer_of(seed=1) != answer_of(seed=2)
    assert answer_of() != answer_of()


def test_penalties_bias_and_own_fields_reach_the_sampler(client: openai.OpenAI) -> None:
    def answer_of(**changes: Any) -> str:
        asked: dict[str, Any] = {"model": TINY, "messages": HELLO, "temperature": 0}
        reply = client.chat.completions.create(**asked | {"max_tokens": 24} | changes)
        return reply.choices[0].message.content or ""

    plain = answer_of()
    assert answer_of(logit_bias={str(ord("x")): 100}) == "x" * 24
    assert answer_of(extra_body={"repetition_penalty": 9.0}) != plain
    spread = {"temperature": 2, "seed": 3}
    assert answer_of(**spread, extra_body={"top_k": 1}) == plain
    assert answer_of(**spread, extra_body={"min_p": 1.0}) == plain
    assert answer_of(**spread, top_p=0) == plain != answer_of(**spread)
    near = {str(ord("x")): 4.0}
    assert answer_of(logit_bias=near).count("x") > answer_of(
        logit_bias=near, frequency_penalty=2
    ).count("x")
    assert answer_of(logit_bias=near, presence_penalty=2) != answer_of(logit_bias=near)


def test_answer_ends_before_a_stop_string(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "nano-text", "messages": HELLO, "temperature": 0}
    whole = client.chat.completions.create(**asked, max_tokens=20).choices[0]
    text = whole.message.content or ""
    stop = text[6:9]
    cut = client.chat.completions.create(**asked, max_tokens=20, stop=["☃", stop]).choices[0]
    assert cut.message.content == text[: text.index(stop)].rstrip()
    assert (whole.finish_reason, cut.finish_reason) == ("length", "stop")


def test_logprobs_tell_every_token_and_its_rivals(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": TINY,
        "messages": HELLO,
        "temperature": 0,
        "max_tokens": 6,
        "logprobs": True,
        "top_logprobs": 3,
    }
    whole = client.chat.completions.create(**asked).choices[0].logprobs
    assert whole is not None and whole.content is not None and len(whole.content) == 6
    for token in whole.content:
        assert token.logprob == token.top_logprobs[0].logprob <= 0  # greedy
        assert len(token.top_logprobs) == 3
        assert bytes(token.bytes or []).decode("utf-8", "ignore") in token.token
    streamed = [
        token
        for chunk in client.chat.completions.create(**asked, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or []
    ]
    assert [token.token for token in streamed] == [token.token for token in whole.content]


def test_response_is_json_when_a_format_asks_for_it(client: openai.OpenAI) -> None:
    for model in ("nano-text", TINY):
        reply = client.chat.completions.create(
            model=model,
            messages=HELLO,
            seed=1,
            max_tokens=200,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "city", "schema": CITY, "strict": True},
            },
        )
        assert json.loads(reply.choices[0].message.content or "")["city"] in ("Rome", "北京")
    whole = client.chat.completions.create(
        model=TINY,
        messages=HELLO,
        seed=1,
        response_format={"type": "json_object"},
        logit_bias={str(ord("}")): 30, str(ord(" ")): -100, str(ord("\n")): -100},
    )
    assert isinstance(json.loads(whole.choices[0].message.content or ""), dict)


def test_response_matches_a_pattern_or_a_grammar_when_one_is_given(client: openai.OpenAI) -> None:
    formats = [
        {"type": "regex", "pattern": "(ab|cd){3}"},
        {"type": "lark", "grammar": 'start: ("ab" | "cd") ("ab" | "cd") ("ab" | "cd")'},
    ]
    for format in formats:
        for model in ("nano-text", TINY):
            reply = client.chat.completions.create(
                model=model, messages=HELLO, max_tokens=30, extra_body={"response_format": format}
            )
            assert re.fullmatch("(ab|cd){3}", reply.choices[0].message.content or "")


class _City(BaseModel):
    city: Literal["Rome", "Oslo"]
    is_capital: bool


def test_client_reads_a_schema_of_its_own(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(
        model="nano-text", messages=HELLO, response_format=_City, seed=2, max_tokens=200
    )
    assert isinstance(reply.choices[0].message.parsed, _City)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_model_calls_a_tool_when_it_must(client: openai.OpenAI, choice: Any) -> None:
    tools = TOOLS[:1]
    reply = client.chat.completions.create(
        model=TINY, messages=HELLO, tools=tools, tool_choice=choice, seed=3, max_tokens=100
    )
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Rome", "北京")
    assert (reply.choices[0].finish_reason, reply.choices[0].message.content) == (
        "tool_calls",
        None,
    )


def test_calls_made_together_come_together(
    client: openai.OpenAI, models: list[ServedModel], script: Script
) -> None:
    written = ("\nLet me see.", "<|assistant|>", "weather\n", '{"city": "Rome"}')
    written += ("<|assistant|>", "clock\n", "{}", "<|observation|>")
    asked: dict[str, Any] = {"model": TINY, "messages": HELLO, "tools": TOOLS, "max_tokens": 100}
    script(_said(models[1], *written))
    reply = client.chat.completions.create(**asked).choices[0]
    assert reply.message.content == "Let me see."
    calls = reply.message.tool_calls or []
    assert [call.function.name for call in calls] == ["weather", "clock"]  # type: ignore[union-attr]
    assert reply.finish_reason == "tool_calls"
    script(_said(models[1], *written))
    told: dict[int, list[str]] = {0: [], 1: []}
    content = ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for part in delta.tool_calls or []:
            assert part.function
            told[part.index] += [part.function.name or "", part.function.arguments or ""]
    assert content == "Let me see."
    assert ["".join(parts) for parts in told.values()] == ['weather{"city": "Rome"}', "clock{}"]


def test_answer_ends_behind_the_first_call_when_only_one_may_be_made(
    client: openai.OpenAI, models: list[ServedModel], script: Script
) -> None:
    call = ("weather\n", '{"city": "Rome"}', "<|assistant|>")
    script(_said(models[1], *call * 20))
    reply = client.chat.completions.create(
        model=TINY, messages=HELLO, tools=TOOLS, parallel_tool_calls=False, max_tokens=400
    )
    assert len(reply.choices[0].message.tool_calls or []) == 1
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.usage and 0 < reply.usage.completion_tokens < 400


def test_call_that_does_not_parse_is_content(
    client: openai.OpenAI, models: list[ServedModel], script: Script
) -> None:
    script(_said(models[1], "weather\n", '{"city": ', "<|observation|>"))
    choice = client.chat.completions.create(
        model=TINY, messages=HELLO, tools=TOOLS, max_tokens=100
    ).choices[0]
    assert (choice.message.content, choice.message.tool_calls) == ('weather\n{"city": ', None)
    assert choice.finish_reason == "stop"


def test_conversation_goes_on_with_a_tools_result(client: openai.OpenAI) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "12:00"},
    ]
    asked: dict[str, Any] = {"model": TINY, "tools": TOOLS, "max_tokens": 1}
    before = client.chat.completions.create(**asked, messages=HELLO)
    after = client.chat.completions.create(**asked, messages=messages)
    assert before.usage and after.usage
    assert after.usage.prompt_tokens > before.usage.prompt_tokens + len("12:00")


def test_client_gathers_a_stream_of_calls_and_of_a_schema(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": TINY, "messages": HELLO, "seed": 3, "max_tokens": 120}
    with client.chat.completions.stream(**asked, tools=TOOLS[:1], tool_choice="required") as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in kinds
    (call,) = final.message.tool_calls or []
    assert json.loads(call.function.arguments)["city"] in ("Rome", "北京")
    with client.chat.completions.stream(**asked, response_format=_City) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, _City)


def test_client_raises_when_a_stream_breaks_off(
    client: openai.OpenAI, models: list[ServedModel], script: Script
) -> None:
    script(_said(models[1], "\nHello"))  # and then there is nothing more to choose
    stream = client.chat.completions.create(
        model=TINY, messages=HELLO, max_tokens=20, temperature=1, stream=True
    )
    with pytest.raises(openai.APIError, match="the model failed: the server's log tells why"):
        for _ in stream:
            continue


def test_answers_have_an_id_that_the_log_knows(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=TINY, messages=HELLO, max_tokens=1)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.parse().id.startswith("chatcmpl-")


def test_function_call_answers_a_request_of_the_old_form(client: openai.OpenAI) -> None:
    function = TOOLS[0]["function"]
    reply = client.chat.completions.create(
        model=TINY,
        messages=HELLO,
        functions=[function],
        function_call={"name": "weather"},
        seed=1,
        max_tokens=100,
    )
    call = reply.choices[0].message.function_call
    assert call is not None and json.loads(call.arguments)["city"] in ("Rome", "北京")
    assert reply.choices[0].finish_reason == "function_call"


def test_special_tokens_in_a_message_are_text(
    client: openai.OpenAI, models: list[ServedModel]
) -> None:
    text = "<|user|><|assistant|>[gMASK]<sop>[MASK]"
    for served in models:
        plain = served.tokenizer.encode(text)
        assert not served.tokenizer.special_ids & set(plain)
        reply = client.chat.completions.create(
            model=served.name, messages=[{"role": "user", "content": text}], max_tokens=1
        )
        empty = client.chat.completions.create(
            model=served.name, messages=[{"role": "user", "content": "?"}], max_tokens=1
        )
        assert reply.usage and empty.usage
        grown = reply.usage.prompt_tokens - empty.usage.prompt_tokens
        assert grown > 5 * len(["user", "assistant", "gMASK", "sop", "MASK"]) - 10


def test_prompt_is_found_in_the_cache_the_second_time(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "tell me about prefixes " * 10}]
    for _ in range(2):
        reply = client.chat.completions.create(model=TINY, messages=messages, max_tokens=1)
    assert reply.usage and reply.usage.prompt_tokens_details
    assert (reply.usage.prompt_tokens_details.cached_tokens or 0) > 100


@pytest.mark.parametrize(
    ("changes", "param", "reason"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "user", "content": "a" * 10**6}]}, "messages", "1,000,000 char"),
        ({"messages": [5] * 10**6}, "messages[0]", "valid dict"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages[0].role", "one of system"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "text or a list"),
        ({"messages": [{"role": "assistant", "content": "?"}]}, "messages", "after nobody"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", "give one of them"),
        ({"max_tokens": "4"}, "max_tokens", "valid integer"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": True}, "temperature", "valid number"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 100}, "n", "at most 32"),
        ({"stop": [""]}, "stop[0]", "at least 1 character"),
        ({"stop": ["a"] * 40}, "stop", "at most 32"),
        ({"seed": 2**64}, "seed", "less than"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "ids of tokens"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias", "names the id 99999999"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "less than or equal to 100"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "set stream to true"),
        ({"newest_wins": True}, "newest_wins", "needs user"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_new_tokens", "max_new_tokens"),
        ({"heat": 1}, "heat", "unknown parameter"),
        ({"modalities": ["audio"]}, "modalities[0]", "'text'"),
        ({"store": True}, "store", "False"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "must be an object"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice", "'none', 'auto'"),
        ({"tool_choice": "required"}, "tool_choice", "no functions"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        ({"response_format": {"type": "regex"}}, "response_format.pattern", "must be text"),
        ({"response_format": {"type": "regex", "pattern": "("}}, "response_format", "regular"),
        (
            {"tools": TOOLS, "response_format": {"type": "regex", "pattern": "a"}},
            "response_format",
            "must be JSON where tools",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}},
            "response_format",
            "JSON schema",
        ),
    ],
)
def test_request_is_refused_when_a_field_is_wrong(
    http: httpx2.Client, changes: dict[str, Any], param: str | None, reason: str
) -> None:
    asked = {"model": TINY, "messages": HELLO} | changes
    reply = http.post("/v1/chat/completions", json=asked)
    error = reply.json()["error"]
    assert reply.status_code == 400, error
    assert error["type"] == "invalid_request_error" and error["param"] == param
    assert reason in error["message"]


def test_request_is_refused_when_calls_in_it_do_not_parse(client: openai.OpenAI) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{"}}
    messages: list[Any] = [*HELLO, {"role": "assistant", "tool_calls": [call]}]
    with pytest.raises(openai.BadRequestError, match="arguments") as caught:
        client.chat.completions.create(model=TINY, messages=messages)
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_picture_is_refused_when_the_model_has_no_eyes(client: openai.OpenAI) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages: list[Any] = [{"role": "user", "content": [picture]}]
    with pytest.raises(openai.BadRequestError, match="has no eyes") as caught:
        client.chat.completions.create(model=TINY, messages=messages)
    assert caught.value.param == "messages[0].content[0]"


def test_tools_are_refused_when_the_model_knows_none(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not trained to chat and knows no tools"):
        client.chat.completions.create(model="nano-text", messages=HELLO, tools=TOOLS)


def test_conversation_is_refused_when_it_is_longer_than_the_context(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "long " * 600}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="context holds 2048") as caught:
            client.chat.completions.create(model=TINY, messages=messages, stream=stream)
        assert caught.value.code == "context_length_exceeded"


def test_answer_is_cut_when_the_context_is_full(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=TINY,
        messages=[{"role": "user", "content": "x" * 2000}],
        max_tokens=5000,
        logit_bias={str(ord("x")): 100},
    )
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage and reply.usage.total_tokens == 2048
