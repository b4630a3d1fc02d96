"""OpenAI's messages to conversations and back: nothing is lost that the format can say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_core.chat import Message, Role, ToolCall, chat_format
from glm_core.chat.message import check_conversation
from glm_core.serve.openai.convert import chat_messages, openai_messages
from glm_core.serve.openai.fields import BadField

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"[A-Za-z_][\w.-]{0,9}", fullmatch=True)
PYTHON_NAMES = st.from_regex(r"[a-z_]{1,9}_", fullmatch=True)
LEAVES = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
ARGUMENTS = st.dictionaries(PYTHON_NAMES, VALUES, max_size=3)


@st.composite
def call(draw: st.DrawFn, index: int) -> dict[str, Any]:
    call_id = f"call_{draw(st.integers(0, 99))}_{index}"
    if draw(st.integers(0, 4)) == 0:
        text = draw(TEXT.filter(bool))
        return {"id": call_id, "type": "custom", "custom": {"name": "python", "input": text}}
    arguments = json.dumps(draw(ARGUMENTS), ensure_ascii=False)
    inner = {"name": draw(NAMES), "arguments": arguments}
    return {"id": call_id, "type": "function", "function": inner}


@st.composite
def conversation(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation of OpenAI's in its plainest form."""
    system = draw(TEXT)
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(TEXT)})
        for _ in range(draw(st.integers(0, 2))):
            calls = [draw(call(index)) for index in range(draw(st.integers(1, 3)))]
            content = draw(TEXT) or None
            messages.append({"role": "assistant", "content": content, "tool_calls": calls})
            messages += [
                {"role": "tool", "tool_call_id": one["id"], "content": draw(TEXT)} for one in calls
            ]
        messages.append({"role": "assistant", "content": draw(TEXT)})
    return messages


@pytest.mark.parametrize("name", ["chatglm3", "chatglm3-compact", "glm4"])
@given(told=conversation())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_conversation_comes_back_when_the_format_can_say_it(
    name: str, told: list[dict[str, Any]]
) -> None:
    messages = chat_messages(told, chat_format(name))
    check_conversation(messages)
    assert openai_messages(messages) == told
    again = chat_messages(openai_messages(messages), chat_format(name))
    assert again == messages
    assert [m.to_dict() for m in again] == [m.to_dict() for m in messages]  # ids too
    assert [Message.from_dict(m.to_dict()).to_dict() for m in messages] == [
        m.to_dict() for m in messages
    ]


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_plain_conversation_comes_back_in_every_format(turns: list[tuple[str, str]]) -> None:
    told = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    for name in ("chatglm", "chatglm2", "chatglm3", "glm4"):
        assert openai_messages(chat_messages(told, chat_format(name))) == told


WEATHER = {"name": "weather", "arguments": '{"city":"北京", "days": [1, 2]}'}
ASKED: list[dict[str, Any]] = [{"role": "user", "content": "?"}]


def _calls(*ids: str) -> dict[str, Any]:
    calls = [{"id": one, "type": "function", "function": WEATHER} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _result(call_id: str, content: Any = "sunny") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_parallel_calls_take_turns_with_their_results_whatever_order_these_came_in() -> None:
    told = [*ASKED, _calls("a", "b"), _result("b", "B"), _result("a", "A")]
    messages = chat_messages(told, chat_format("chatglm3"))
    content = '```python\ntool_call(city="北京", days=[1, 2])\n```'
    arguments = {"city": "北京", "days": [1, 2]}
    call = Message(Role.assistant, content, "weather", (ToolCall("weather", arguments),))
    assert messages == [
        Message(Role.user, "?"),
        call,
        Message(Role.observation, "A"),
        call,
        Message(Role.observation, "B"),
    ]
    assert [one.tool_calls[0].id for one in messages if one.tool_calls] == ["a", "b"]


def test_glm4_keeps_arguments_as_they_were_written() -> None:
    told = [*ASKED, _calls("a"), _result("a")]
    messages = chat_messages(told, chat_format("glm4"))
    assert messages[1].content == WEATHER["arguments"]
    assert openai_messages(messages) == told


@pytest.mark.parametrize("arguments", ["", "  ", "{}"])
def test_call_without_arguments_is_written_when_they_are_empty(arguments: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    told = [*ASKED, {"role": "assistant", "tool_calls": [call]}, _result("a")]
    assert chat_messages(told, chat_format("chatglm3"))[1].content == "```python\ntool_call()\n```"
    assert chat_messages(told, chat_format("glm4"))[1].content == "{}"


def test_synonyms_are_understood() -> None:
    told = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
        },
        *ASKED,
        {"role": "assistant", "content": None, "function_call": WEATHER},
        {"role": "function", "name": "weather", "content": "sunny"},
    ]
    messages = chat_messages(told, chat_format("glm4"))
    assert messages[0] == Message(Role.system, "Be\nbrief.")
    assert messages[2].tool_calls[0].arguments["city"] == "北京"
    assert messages[3] == Message(Role.observation, "sunny")


def test_text_and_call_of_a_session_become_one_message() -> None:
    call = ToolCall("f", {"x": 1})
    messages = [
        Message(Role.user, "?"),
        Message(Role.assistant, "Let me see."),
        chat_format("chatglm3").write_call(call),
        Message(Role.observation, "2"),
        Message(Role.assistant, "It is 2."),
    ]
    told = openai_messages(messages)
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "assistant"]
    assert told[1]["content"] == "Let me see."
    assert told[1]["tool_calls"][0]["id"] == told[2]["tool_call_id"] == "call_0"
    assert chat_messages(told, chat_format("chatglm3")) == messages


def test_unreadable_call_stays_visible() -> None:
    message = Message(Role.assistant, "{bad", "weather", fault="the arguments are not JSON")
    assert openai_messages([message]) == [{"role": "assistant", "content": "weather\n{bad"}]


def test_picture_is_read_when_the_model_has_eyes() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    told = [{"role": "user", "content": parts}]
    (message,) = chat_messages(told, chat_format("glm4"), lambda url: f"<picture {len(url)}>")
    assert message.content == "What is this?\n<picture 26>"
    with pytest.raises(BadField, match=r"messages\[0\].content\[1\]: this model has no eyes"):
        chat_messages(told, chat_format("glm4"))


def _with_call(**function: Any) -> list[dict[str, Any]]:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"} | function}
    return [*ASKED, {"role": "assistant", "tool_calls": [call]}, _result("a")]


CUSTOM = {"id": "a", "type": "custom", "custom": {"name": "python", "input": ""}}
WRONG: list[tuple[str, str, list[Any]]] = [
    ("messages[0]: is 'hi': it must be an object", "glm4", ["hi"]),
    ("messages[0].role: is 'robot'", "glm4", [{"role": "robot", "content": ""}]),
    ("messages[0].content: is None", "glm4", [{"role": "user"}]),
    ("messages[0].content: is 3", "glm4", [{"role": "user", "content": 3}]),
    (
        "messages[0].content: holds half a character",
        "glm4",
        [{"role": "user", "content": "\ud800"}],
    ),
    (
        "messages[0].content[0].type: is 'audio'",
        "glm4",
        [{"role": "user", "content": [{"type": "audio"}]}],
    ),
    (
        "messages[0].name: the model cannot tell",
        "glm4",
        [{"role": "user", "content": "", "name": "Bob"}],
    ),
    (
        "messages[1]: models read one system",
        "glm4",
        [*ASKED, {"role": "system", "content": "late"}],
    ),
    ("messages[1]: answers no call", "glm4", [*ASKED, _result("a")]),
    (
        "tool_calls: no result follows the call 'b'",
        "glm4",
        [*ASKED, _calls("a", "b"), _result("a")],
    ),
    (
        "tool_call_id: 'c' names no call",
        "glm4",
        [*ASKED, _calls("a", "b"), _result("a"), _result("c")],
    ),
    (
        "tool_call_id: 'a' names no call",
        "glm4",
        [*ASKED, _calls("a", "b"), _result("a"), _result("a")],
    ),
    ("messages[1].tool_calls: two calls have the same id", "glm4", [*ASKED, _calls("a", "a")]),
    (
        "messages[2].name: the call 'a' is of weather",
        "glm4",
        [*ASKED, _calls("a"), _result("a") | {"name": "f"}],
    ),
    ("messages[1].tool_calls: is 'x'", "glm4", [*ASKED, {"role": "assistant", "tool_calls": "x"}]),
    ("function.name: is 'a b'", "glm4", _with_call(name="a b")),
    ("arguments: the arguments are not JSON", "glm4", _with_call(arguments="{bad")),
    ("arguments: the arguments are a JSON list", "glm4", _with_call(arguments="[]")),
    (
        "arguments: the chatglm3 format cannot write",
        "chatglm3",
        _with_call(arguments='{"class": 1}'),
    ),
    ("arguments: the chatglm3 format cannot write", "chatglm3", _with_call(arguments='{"ﬁ": 1}')),
    ("arguments: the chatglm2 format knows no tools", "chatglm2", _with_call()),
    ("custom.input: is empty", "glm4", [*ASKED, {"role": "assistant", "tool_calls": [CUSTOM]}]),
]


@pytest.mark.parametrize(("reason", "name", "told"), WRONG)
def test_message_is_refused_with_its_place_when_it_cannot_be_said(
    reason: str, name: str, told: list[Any]
) -> None:
    with pytest.raises(BadField) as caught:
        chat_messages(told, chat_format(name))
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{caught.value.param}: ")
    assert caught.value.param.startswith("messages[")
