"""Answers as OpenAI's deltas: put together they are the whole message, however they were cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_core.chat import chat_format
from glm_core.serve.openai.convert import chat_messages
from glm_core.serve.openai.deltas import AnswerTranslator, Delta, End

WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": WEATHER}]
CALL = {
    "chatglm3": 'weather\n```python\ntool_call(city="北京")\n```',
    "glm4": 'weather\n{"city":"北京"}',
}
BAD = {"chatglm3": "weather\n```python\ntool_call(city=f())\n```", "glm4": 'weather\n{"city": '}


def _told(
    name: str, segments: list[str], size: int = 3, is_cut: bool = False, **options: Any
) -> tuple[list[Delta], End]:
    """Feeds segments between which the model's mark stands, in pieces of `size` characters."""
    reader = chat_format(name).reader(TOOLS if name in CALL else ())
    translator = AnswerTranslator(reader, "chatcmpl-1", **options)
    deltas: list[Delta] = []
    for index, segment in enumerate(segments):
        for start in range(0, len(segment), size):
            deltas += translator.push(segment[start : start + size])
        if index + 1 < len(segments):
            deltas += translator.push("", ends_message=True)
    rest, end = translator.finish(wants_observation=True, is_cut=is_cut)
    return deltas + rest, end


def _assembled(deltas: list[Delta]) -> dict[str, Any]:
    """What a client makes of deltas."""
    assert deltas[0]["role"] == "assistant" and all("role" not in one for one in deltas[1:])
    content = "".join(one.get("content", "") for one in deltas)
    calls: list[dict[str, Any]] = []
    for one in deltas:
        for call in one.get("tool_calls", ()):
            if call["index"] == len(calls):
                begun = {"name": call["function"]["name"], "arguments": ""}
                calls.append({"id": call["id"], "type": call["type"], "function": begun})
            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    return message | {"content": content or None, "tool_calls": calls} if calls else message


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_deltas_make_the_message_when_text_and_two_calls_come(name: str, size: int) -> None:
    deltas, end = _told(name, ["\nLet me see.", CALL[name], CALL[name]], size)
    assert _assembled(deltas) == end.message
    assert end.finish_reason == "tool_calls" and end.fault == ""
    assert end.message["content"] == "Let me see."
    calls = end.message["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": "北京"}] * 2
    assert len({call["id"] for call in calls}) == 2
    assert calls[0]["id"].startswith("call_") and _told(name, [CALL[name]])[1].message[
        "tool_calls"
    ] == [calls[0]]
    asked = [{"role": "user", "content": "?"}, end.message]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in calls]
    said = chat_messages(asked + results, chat_format(name))
    assert [message.content for message in said if message.name] == [CALL[name][8:]] * 2


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_call_is_content_when_it_cannot_be_read(name: str) -> None:
    deltas, end = _told(name, [BAD[name]])
    assert _assembled(deltas) == end.message == {"role": "assistant", "content": BAD[name]}
    assert end.finish_reason == "stop"
    assert "argument" in end.fault


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_reason_is_length_when_a_call_is_cut(name: str) -> None:
    deltas, end = _told(name, [CALL[name][:-2]], is_cut=True)
    assert end.finish_reason == "length" and "tool_calls" not in end.message
    assert _assembled(deltas)["content"] == CALL[name][:-2]


def test_texts_of_one_answer_are_parted() -> None:
    deltas, end = _told("glm4", ["\nOne.", "\nTwo."])
    assert _assembled(deltas) == end.message == {"role": "assistant", "content": "One.\nTwo."}


def test_plain_answer_is_told_in_every_format() -> None:
    for name in ("chatglm", "chatglm2", "glm4"):
        deltas, end = _told(name, ["Hello"], size=2)
        assert _assembled(deltas) == end.message == {"role": "assistant", "content": "Hello"}
        assert end.finish_reason == "stop"
    deltas, end = _told("glm4", [""])
    assert deltas == [{"role": "assistant", "content": ""}] and end.finish_reason == "stop"


def test_answer_has_enough_when_calls_must_not_be_parallel() -> None:
    reader = chat_format("glm4").reader(TOOLS)
    translator = AnswerTranslator(reader, "1", parallel=False)
    translator.push(CALL["glm4"])
    assert not translator.has_enough
    translator.push("", ends_message=True)
    assert translator.has_enough
    translator.push(CALL["glm4"])
    _, end = translator.finish()
    assert len(end.message["tool_calls"]) == 1 and end.finish_reason == "tool_calls"


def test_answer_has_a_function_call_when_the_request_is_of_the_old_form() -> None:
    deltas, end = _told("glm4", [CALL["glm4"]], is_legacy=True)
    assert [one.get("function_call") for one in deltas] == [
        {"name": "weather", "arguments": ""},
        {"arguments": '{"city":"北京"}'},
    ]
    assert end.finish_reason == "function_call"
    assert end.message["function_call"] == {"name": "weather", "arguments": '{"city":"北京"}'}


def test_code_is_a_custom_call() -> None:
    deltas, end = _told("chatglm3", ["interpreter\n```python\nprint(1)\n```"])
    (call,) = end.message["tool_calls"]
    assert call["type"] == "custom"
    assert call["custom"] == {"name": "interpreter", "input": "print(1)"}
    assert deltas[1] == {"tool_calls": [{"index": 0, "custom": {"input": "print(1)"}}]}


@given(st.lists(st.text(max_size=30), max_size=4), st.integers(1, 5), st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_deltas_make_the_message_whatever_is_written(
    segments: list[str], size: int, is_cut: bool
) -> None:
    for name in ("chatglm3", "glm4"):
        deltas, end = _told(name, [*segments, CALL[name], *segments], size, is_cut)
        assert _assembled(deltas) == end.message
