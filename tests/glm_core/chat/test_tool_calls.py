"""Tool calls: read when they are literals, refused with a reason when they are anything else."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from glm_core.chat import ToolCall, chat_format
from glm_core.chat.message import Message
from glm_core.chat.tool_calls import (
    UnreadableCall,
    read_json_call,
    read_python_call,
    read_text_call,
)


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("tool_call()", {}),
        ("tool_call(seed=42, range=(0, 100))", {"seed": 42, "range": [0, 100]}),
        ("tool_call(city='北京', n=-1.5e3, on=True, x=None)",
         {"city": "北京", "n": -1500.0, "on": True, "x": None}),
        ("tool_call(a={'k': [1, {'m': ()}]},\n    b='''two\nlines''')",
         {"a": {"k": [1, {"m": []}]}, "b": "two\nlines"}),
        ("tool_call(text='a ```fence``` within')", {"text": "a ```fence``` within"}),
        (r"tool_call(path='C:\dir')", {"path": r"C:\dir"}),
    ],
)  # fmt: skip
def test_python_call_is_read_when_arguments_are_literals(
    code: str, arguments: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a wrong escape in the model's text is not our warning
        assert read_python_call("f", _fenced(code)) == ToolCall("f", arguments)
        assert read_python_call("f", f"\n {_fenced(code)} \n") == ToolCall("f", arguments)


NASTY_PYTHON = {
    "tool_call(x=__import__('os').system('touch /tmp/owned'))": "x is no literal but a Call",
    "tool_call(x=open('/etc/passwd').read())": "x is no literal but a Call",
    "tool_call(x=tool_call(y=1))": "x is no literal but a Call",
    "tool_call(**{'a': 1})": "unpacked with \\*\\*",
    "tool_call(*[1])": "an argument has no name",
    "tool_call('Beijing')": "an argument has no name",
    "tool_call(x=f'{1+1}')": "x is no literal but a JoinedStr",
    "tool_call(x=[i for i in range(9)])": "x is no literal but a ListComp",
    "tool_call(x=(i for i in ()))": "x is no literal but a GeneratorExp",
    "tool_call(x=().__class__.__bases__)": "x is no literal but a Attribute",
    "tool_call(x=10**10**10)": "x is no literal but a BinOp",
    "tool_call(x='a'*10**10)": "x is no literal but a BinOp",
    "tool_call(x=lambda: 1)": "x is no literal but a Lambda",
    "tool_call(x={1, 2})": "x is no literal but a Set",
    "tool_call(x=y)": "x is no literal but a Name",
    "tool_call(x=-y)": "x is no literal but a UnaryOp",
    "tool_call(x=-True)": "x is no literal but a UnaryOp",
    "tool_call(x=not 1)": "x is no literal but a UnaryOp",
    "tool_call(x={**{}})": "a key that is no text",
    "tool_call(x={1: 2})": "a key that is no text",
    "tool_call(x={'a' 'b': {[]: 1}})": "a key that is no text",
    "tool_call(x=b'raw')": "is a bytes, which JSON has not",
    "tool_call(x=1j)": "is a complex, which JSON has not",
    "tool_call(x=...)": "is a ellipsis, which JSON has not",
    "tool_call(x=1e999)": "not a finite number",
    "tool_call(x=-1e999)": "not a finite number",
    f"tool_call(x={'9' * 5000})": "not valid Python",
    f"tool_call(x=0x{'f' * 5000})": "more than 1024 bits",
    "tool_call(x='\\ud800')": "half a character",
    "tool_call(x=1, x=2)": "x is given twice",
    "tool_call(x=)": "not valid Python",
    "tool_call(x=1": "not valid Python",
    "tool_call(x=1); import os": "not valid Python",
    "import os": "not valid Python",
    "tool_call(x=1)\ntool_call(x=2)": "not valid Python",
    "x = tool_call(y=1)": "not valid Python",
    "tool_call": "not a call of tool_call",
    "get_weather(city='x')": "calls get_weather, not tool_call",
    "os.system(x='ls')": "not a call of tool_call",
    "tool_call(x=1)(y=2)": "not a call of tool_call",
    "(tool_call := print)(x=1)": "not a call of tool_call",
    "tool_call(x=\0)": "not valid Python",
    "": "not valid Python",
    "tool_call(x=" + "[" * 150 + "]" * 150 + ")": "nested too deeply",
    "tool_call(x=" + "[" * 5000 + "]" * 5000 + ")": "not valid Python",
    "tool_call(x=" + "-" * 50000 + "1)": "not valid Python|no literal",
    "tool_call(x=" + "1+" * 30000 + "1)": "not valid Python|no literal",
    "tool_call(x=" + "a." * 20000 + "a)": "not valid Python|no literal",
    "tool_call(x='" + "y" * 70000 + "')": "more than 65536",
}


@pytest.mark.parametrize("code", NASTY_PYTHON, ids=lambda code: code[:40])
def test_python_call_is_refused_with_a_reason(code: str) -> None:
    with pytest.raises(UnreadableCall, match=NASTY_PYTHON[code]):
        read_python_call("f", _fenced(code))


@pytest.mark.parametrize(
    "content",
    ["", "```", "``````", "tool_call(x=1)", "```python\ntool_call(x=1)", "tool_call(x=1)\n```",
     "Let me call:\n```python\ntool_call(x=1)\n```", "```python\ntool_call(x=1)\n``` done"],
)  # fmt: skip
def test_python_call_is_refused_when_it_is_not_one_fenced_block(content: str) -> None:
    with pytest.raises(UnreadableCall, match="not one fenced block"):
        read_python_call("f", content)


def test_json_call_is_read_when_it_is_an_object() -> None:
    call = read_json_call("f", ' {"city": "北京", "days": [1, 2.5, null]}\n')
    assert call == ToolCall("f", {"city": "北京", "days": [1, 2.5, None]})


NASTY_JSON = {
    "": "not JSON",
    "{": "not JSON",
    '{"a": 1} and more': "not JSON",
    "{'a': 1}": "not JSON",
    "[1, 2]": "are a JSON list, no object",
    '"text"': "are a JSON str, no object",
    "null": "are a JSON NoneType, no object",
    '{"a": NaN}': "hold NaN, which is not JSON",
    '{"a": -Infinity}': "hold -Infinity, which is not JSON",
    '{"a": 1e999}': "not a finite number",
    '{"a": ' + "9" * 5000 + "}": "not JSON",
    '{"a": ' + "9" * 4000 + "}": "more than 1024 bits",
    '{"a": "\\ud83d"}': "half a character",
    '{"\\udc00": 1}': "half a character",
    '{"a": ' + "[" * 40 + "]" * 40 + "}": "nested too deeply",
    '{"a": ' + "[" * 30000 + "]" * 30000 + "}": "not JSON|nested too deeply",
    "__import__('os').system('true')": "not JSON",
    '{"a": "' + "y" * 70000 + '"}': "more than 65536",
}


@pytest.mark.parametrize("content", NASTY_JSON, ids=lambda content: content[:40])
def test_json_call_is_refused_with_a_reason(content: str) -> None:
    with pytest.raises(UnreadableCall, match=NASTY_JSON[content]):
        read_json_call("f", content)


def test_code_stays_text() -> None:
    code = "import os\nos.system('touch owned')\nprint('```')"
    assert read_text_call("interpreter", _fenced(code)) == ToolCall("interpreter", {}, code)
    assert read_text_call("python", f"{code}\n") == ToolCall("python", {}, code)


TOOL = {
    "name": "get_weather",
    "parameters": {"properties": {"city": {}, "unit": {}}, "required": ["city"]},
}


def _read(name: str, text: str, wants_observation: bool = True) -> list[Message]:
    reader = chat_format(name).reader([TOOL])
    for char in text:
        reader.push(char)
    return reader.finish(wants_observation, is_cut=False)[1]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("", "the argument city of get_weather is missing"),
        ("unit='x'", "the argument city of get_weather is missing"),
        ("city='x', country='y'", "get_weather has no argument country"),
        ("city='x', unit='y'", ""),
    ],
)
def test_call_is_checked_against_the_tools_parameters(arguments: str, fault: str) -> None:
    content = _fenced(f"tool_call({arguments})")
    (message,) = _read("chatglm3", f"get_weather\n{content}")
    assert (message.name, message.content, message.fault) == ("get_weather", content, fault)
    assert bool(message.tool_calls) == (not fault)


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
@pytest.mark.parametrize("content", [_fenced(code) for code in NASTY_PYTHON] + [*NASTY_JSON])
def test_hostile_call_becomes_a_message_with_its_raw_text(name: str, content: str) -> None:
    (message,) = _read(name, f"get_weather\n{content}")
    assert message.content == content and message.fault and not message.tool_calls
