"""From answers to messages."""

from __future__ import annotations

import pytest

from glm_core.chat import Message, Role, ToolCall, chat_format
from glm_core.chat.reader import AnswerReader

TOOLS = [{"name": "get_weather", "parameters": {}}]
CALL = '```python\ntool_call(city="Beijing")\n```'


def _push(reader: AnswerReader, text: str) -> str:
    return "".join(map(reader.push, text))


def _answer(content: str, name: str = "", **more: object) -> Message:
    return Message(Role.assistant, content, name, **more)  # type: ignore[arg-type]


def test_first_line_break_is_no_part_of_the_text() -> None:
    reader = chat_format("chatglm3").reader()
    assert _push(reader, "\n Hello\nyou. ") == "Hello\nyou."
    assert reader.finish(False, False) == ("", [_answer("Hello\nyou.")])


def test_text_is_shown_at_once_when_no_tool_begins_so() -> None:
    reader = chat_format("glm4").reader(TOOLS)
    assert [reader.push(piece) for piece in ("g", "ive", " me")] == ["", "give", " me"]
    assert reader.finish(False, False) == ("", [_answer("give me")])


def test_call_is_read_and_not_shown() -> None:
    reader = chat_format("chatglm3").reader(TOOLS)
    assert _push(reader, f" get_weather\n {CALL}") == ""
    call = ToolCall("get_weather", {"city": "Beijing"})
    expected = _answer(f" {CALL}", "get_weather", tool_calls=(call,))
    assert reader.finish(True, False) == ("", [expected])


def test_text_and_call_are_two_messages_when_a_mark_stands_between() -> None:
    reader = chat_format("chatglm3").reader(TOOLS)
    assert _push(reader, "\n好 ") + reader.next_message() == "好"
    assert _push(reader, "interpreter\n```python\nprint(1)\n```") == ""
    shown, (text, call) = reader.finish(True, False)
    assert (shown, text) == ("", _answer("好"))
    assert (call.name, call.tool_calls) == (
        "interpreter",
        (ToolCall("interpreter", {}, "print(1)"),),
    )


def test_glm4_call_is_json_and_python_is_code() -> None:
    tools = [*TOOLS, {"type": "python"}]
    reader = chat_format("glm4").reader(tools)
    _push(reader, 'get_weather\n{"city": "北京"}')
    assert reader.finish(True, False)[1][0].tool_calls == (
        ToolCall("get_weather", {"city": "北京"}),
    )
    reader = chat_format("glm4").reader(tools)
    _push(reader, "python\nprint(1)")
    assert reader.finish(True, False)[1][0].tool_calls == (ToolCall("python", {}, "print(1)"),)


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_raw_text_and_reason_are_given_when_a_call_is_unreadable(name: str) -> None:
    reader = chat_format(name).reader(TOOLS)
    assert _push(reader, "get_weather\nnonsense") == ""
    shown, (message,) = reader.finish(True, False)
    assert shown == "get_weather\nnonsense"
    assert (message.name, message.content, message.tool_calls) == ("get_weather", "nonsense", ())
    assert message.fault


def test_unknown_tool_is_named_when_the_model_waits_for_it() -> None:
    reader = chat_format("glm4").reader(TOOLS)
    assert _push(reader, 'drop_tables\n{"all": true}') == 'drop_tables\n{"all": true}'
    (message,) = reader.finish(True, False)[1]
    assert (message.name, message.content) == ("drop_tables", '{"all": true}')
    assert message.fault == "the model calls drop_tables, which is none of its tools"


def test_lines_of_text_are_no_call_when_the_model_has_ended() -> None:
    reader = chat_format("glm4").reader()
    _push(reader, "Hello\nworld")
    assert reader.finish(False, False)[1] == [_answer("Hello\nworld")]


def test_cut_answer_is_marked_in_its_last_message() -> None:
    reader = chat_format("chatglm3").reader(TOOLS)
    _push(reader, "\nWell")
    reader.next_message()
    _push(reader, "get_weather\n```python\ntool_ca")
    shown, (text, call) = reader.finish(False, True)
    assert not text.is_cut and call.is_cut and not call.tool_calls
    assert call.fault.startswith("the call is not one fenced block") and "tool_ca" in shown


def test_beginning_of_a_name_is_text_when_nothing_follows() -> None:
    reader = chat_format("chatglm3").reader(TOOLS)
    assert _push(reader, "get") == ""
    assert reader.finish(False, False) == ("get", [_answer("get")])


def test_year_is_put_in_what_is_shown_and_history_keeps_the_models_words() -> None:
    reader = chat_format("chatglm3").reader()
    assert _push(reader, "\n[[训练时间]]好") == "2023年好"
    assert reader.finish(False, False)[1] == [_answer("[[训练时间]]好")]
    reader = chat_format("chatglm").reader()
    shown = _push(reader, " [[训练时间]],a ")
    rest, messages = reader.finish(False, False)
    assert shown + rest == "2023年，a" and messages == [_answer("2023年，a")]
