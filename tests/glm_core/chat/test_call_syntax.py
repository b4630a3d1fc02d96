"""Grammars of calls: what they let through is read back and follows the schema."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import llguidance
import pytest

from glm_core.chat import ToolCall, chat_format
from glm_core.chat.call_syntax import CallSyntax, python_call
from glm_core.chat.tool_calls import read_json_call, read_python_call

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["C", "F", 'a "quote"', None, 3]},
        "days": {"type": "array", "items": {"type": "integer"}},
        "deep": {"$ref": "#/$defs/node"},
        "exact": {"type": "boolean"},
        "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "flag": {"type": ["boolean", "null"]},
        "kind": {"const": {"a": [1]}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["city", "exact"],
    "additionalProperties": False,
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
FUNCTION = {"name": "weather", "parameters": SCHEMA}
TOKENIZER = llguidance.LLTokenizer("byte")


def _matcher(syntax: CallSyntax) -> llguidance.LLMatcher:
    grammar = llguidance.LLMatcher.grammar_from_lark(f"start: {syntax.rule}\n{syntax.rules}")
    matcher = llguidance.LLMatcher(TOKENIZER, grammar)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def _is_allowed(syntax: CallSyntax, text: str) -> bool:
    matcher = _matcher(syntax)
    tokens = TOKENIZER.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def _walk(syntax: CallSyntax, seed: int) -> str:
    """A random text of a grammar; after a while endings are preferred."""
    matcher, choice, text = _matcher(syntax), random.Random(seed), bytearray()
    while not matcher.is_stopped():
        mask = matcher.compute_bitmask()
        allowed = [i for i in range(256) if mask[i // 8] >> (i % 8) & 1]
        endings = [i for i in allowed if chr(i) in '"]}), \nTFN`']
        printable = [i for i in allowed if 32 <= i < 127 or chr(i) == "\n"]
        pool = endings if len(text) > 60 and endings else printable or allowed
        if not pool:
            break
        token = choice.choice(pool)
        assert matcher.consume_token(token)
        text.append(token)
    assert matcher.is_accepting()
    return text.decode()


@pytest.mark.parametrize("seed", range(25))
def test_call_of_chatglm3_is_read_and_valid_when_the_grammar_wrote_it(seed: int) -> None:
    syntax = chat_format("chatglm3").call_syntax(FUNCTION)
    call = read_python_call("weather", syntax.opening + _walk(syntax, seed))
    jsonschema.validate(call.arguments, SCHEMA)


@pytest.mark.parametrize("seed", range(10))
def test_call_of_glm4_is_read_and_valid_when_the_grammar_wrote_it(seed: int) -> None:
    syntax = chat_format("glm4").call_syntax(FUNCTION, "f1_")
    call = read_json_call("weather", syntax.opening + _walk(syntax, seed))
    jsonschema.validate(call.arguments, SCHEMA)


@pytest.mark.parametrize(
    "arguments",
    [
        {"city": '北京 "x" \\ \n\t', "exact": True},
        {"city": "", "unit": 'a "quote"', "days": [], "exact": False},
        {"city": "a", "unit": None, "days": [1, -20], "exact": False, "share": -1.5e-7},
        {"city": "a", "deep": {"name": "b", "next": {"name": "c"}}, "exact": False, "share": None},
        {"city": "a", "exact": True, "flag": None, "kind": {"a": [1]}, "counts": {"x": 1, "y": 2}},
        {"city": "a", "exact": True, "counts": {}},
    ],
)
def test_valid_call_is_allowed_as_it_would_be_written(arguments: dict[str, Any]) -> None:
    jsonschema.validate(arguments, SCHEMA)
    syntax = chat_format("chatglm3").call_syntax(FUNCTION, "f0_")
    content = python_call(arguments)
    assert content.startswith(syntax.opening)
    assert _is_allowed(syntax, content.removeprefix(syntax.opening))
    assert read_python_call("weather", content) == ToolCall("weather", arguments)


@pytest.mark.parametrize(
    "code",
    [
        'city="a")',  # exact is missing
        'exact=True, city="a")',  # in another order
        'city="a", exact=1)',
        'city="a", exact=True, exact=True)',
        'city="a", unit="K", exact=True)',
        'city="a", days=[1.5], exact=True)',
        'city="a", deep={}, exact=True)',
        'city=open("/etc/passwd"), exact=True)',
        'city="a\n", exact=True)',
        'city="a", exact=True, more=1)',
    ],
)
def test_invalid_call_is_not_allowed(code: str) -> None:
    syntax = chat_format("chatglm3").call_syntax(FUNCTION)
    assert not _is_allowed(syntax, f"{code}\n```")


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object", "properties": {}}])
def test_call_has_no_arguments_when_the_function_has_no_parameters(parameters: Any) -> None:
    function = {"name": "now"} | ({} if parameters is None else {"parameters": parameters})
    assert _walk(chat_format("chatglm3").call_syntax(function), 0) == ")\n```"


@pytest.mark.parametrize(
    "schema", [{}, True, {"type": "object"}, {"type": "array"}, {"type": "any"}]
)
def test_value_is_free_when_the_schema_says_nothing(schema: Any) -> None:
    function = {"name": "f", "parameters": {"properties": {"x": schema}, "required": ["x"]}}
    syntax = chat_format("chatglm3").call_syntax(function, "f3_")
    value = [1, {"a": None}] if schema != {"type": "object"} else {"a": [True, "b", 0.5]}
    assert _is_allowed(syntax, python_call({"x": value}).removeprefix(syntax.opening))


def test_schema_is_refused_when_it_cannot_be_said() -> None:
    form = chat_format("chatglm3")
    with pytest.raises(ValueError, match="argument 'class' is no Python name"):
        form.call_syntax({"name": "f", "parameters": {"properties": {"class": {}}}})
    lost = {"properties": {"x": {"$ref": "#/$defs/lost"}}}
    with pytest.raises(ValueError, match="refer to '#/\\$defs/lost', which is not in them"):
        form.call_syntax({"name": "f", "parameters": lost})
    with pytest.raises(ValueError, match="the chatglm format knows no tools"):
        chat_format("chatglm").call_syntax({"name": "f"})
