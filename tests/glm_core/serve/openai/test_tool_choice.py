"""What requests ask of the model: the tools it is told of, how its answer begins, its grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llguidance
import pytest

from glm_core.chat import chat_format
from glm_core.infer.grammar import JsonObject, JsonSchema, Lark, compile_grammar
from glm_core.serve.openai.deltas import AnswerTranslator
from glm_core.serve.openai.fields import BadField
from glm_core.serve.openai.tool_choice import Demand, demand_of

from ...chat.tiny_chat import write_tokenizer

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "parameters": CITY}
CLOCK = {"name": "clock", "description": "Tells the time"}
TOOLS = [
    {"type": "function", "function": WEATHER | {"strict": True}},
    {"type": "function", "function": CLOCK},
]
SHOWN = ({"type": "function", "function": WEATHER}, {"type": "function", "function": CLOCK})
NAMED = {"type": "function", "function": {"name": "weather"}}
BYTES = llguidance.LLTokenizer("byte")


def _demand(name: str = "glm4", **request: Any) -> Demand:
    return demand_of(request, chat_format(name))


def _allows(demand: Demand, text: str) -> bool:
    assert isinstance(demand.grammar, Lark)
    grammar = llguidance.LLMatcher.grammar_from_lark(demand.grammar.text)
    matcher = llguidance.LLMatcher(BYTES, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = BYTES.tokenize_str(text)
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


def test_model_is_told_of_tools_unless_they_are_not_to_be_used() -> None:
    assert _demand(tools=TOOLS) == _demand(tools=TOOLS, tool_choice="auto") == Demand(SHOWN)
    assert _demand(tools=TOOLS, tool_choice="none") == Demand()
    assert _demand(tools=TOOLS, parallel_tool_calls=False) == Demand(SHOWN, parallel=False)
    assert _demand() == _demand(tools=[]) == Demand()


@pytest.mark.parametrize(
    ("name", "opening", "rest"),
    [
        ("glm4", ("weather\n",), '{"city": "北京"}'),
        ("chatglm3", ("weather\n", "```python\ntool_call("), 'city="北京")\n```'),
    ],
)
def test_answer_begins_with_the_call_when_a_tool_is_named(
    name: str, opening: tuple[str, ...], rest: str
) -> None:
    demand = _demand(name, tools=TOOLS, tool_choice=NAMED)
    assert (demand.tools, demand.opening) == (SHOWN, opening)
    assert _allows(demand, rest) and not _allows(demand, rest.replace("city", "town"))
    translator = AnswerTranslator(chat_format(name).reader(demand.tools), "1")
    translator.push(demand.opening_text + rest)
    _, end = translator.finish()
    assert end.finish_reason == "tool_calls"
    assert end.message["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"city": "北京"}',
    }


@pytest.mark.parametrize(
    ("name", "rest"), [("glm4", '{"city": "北京"}'), ("chatglm3", 'city="北京")\n```')]
)
def test_models_tokens_pass_the_grammar_behind_the_opening(
    tmp_path: Path, name: str, rest: str
) -> None:
    tokenizer = write_tokenizer(name, tmp_path)
    demand = _demand(name, tools=TOOLS, tool_choice=NAMED)
    ids = demand.opening_ids(tokenizer)
    assert tokenizer.decode(ids).replace(" ", "") == demand.opening_text.replace(" ", "")
    assert demand.grammar is not None
    state = compile_grammar(demand.grammar, tokenizer).start()
    for token in tokenizer.encode(rest):
        assert not state.may_end
        state.accept(token)
    assert state.is_done


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("glm4", ['weather\n{"city": "x"}', "clock\n{}", ' weather\n {"city": "x"}']),
        (
            "chatglm3",
            [
                'weather\n```python\ntool_call(city="x")\n```',
                " clock\n ```python\ntool_call()\n```",
            ],
        ),
    ],
)
def test_answer_is_one_call_or_another_when_one_is_required(name: str, calls: list[str]) -> None:
    demand = _demand(name, tools=TOOLS, tool_choice="required")
    assert demand.opening == () and not demand.parallel
    for call in calls:
        assert _allows(demand, call), call
        translator = AnswerTranslator(chat_format(name).reader(demand.tools), "1")
        translator.push(call)
        assert translator.finish()[1].finish_reason == "tool_calls"
    assert not _allows(demand, "\nHello") and not _allows(demand, calls[0] + "more")


def test_answer_is_json_when_the_response_format_says_so() -> None:
    plain = {"type": "json_object"}
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}
    assert _demand(response_format={"type": "text"}) == Demand()
    assert _demand(response_format=plain) == Demand(opening=("\n",), grammar=JsonObject())
    assert _demand("chatglm2", response_format=plain) == Demand(grammar=JsonObject())
    assert _demand(response_format=schema).grammar == JsonSchema(CITY)


@pytest.mark.parametrize("name", ["glm4", "chatglm3"])
def test_answer_is_json_or_a_call_when_both_may_come(name: str) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": CITY}}
    demand = _demand(name, tools=TOOLS, response_format=form)
    assert _allows(demand, '\n{"city": "x"}') and not _allows(demand, "\nHello")
    clock = "clock\n{}" if name == "glm4" else "clock\n```python\ntool_call()\n```"
    assert _allows(demand, clock)


def test_old_form_is_understood() -> None:
    demand = _demand(functions=[WEATHER], function_call={"name": "weather"})
    assert (demand.is_legacy, demand.opening, demand.tools) == (True, ("weather\n",), SHOWN[:1])
    assert _demand(functions=[WEATHER], function_call="none") == Demand(is_legacy=True)


def test_tools_that_take_text_are_those_the_model_knows() -> None:
    python = [{"type": "custom", "custom": {"name": "python"}}]
    interpreter = [{"type": "custom", "custom": {"name": "interpreter"}}]
    assert _demand(tools=python).tools == ({"type": "python"},)
    assert _demand("chatglm3", tools=interpreter).tools == ()
    with pytest.raises(BadField, match="tools: the chatglm3 format has no built-in tool 'python'"):
        _demand("chatglm3", tools=python)
    with pytest.raises(BadField, match="tools: built-in tool 'shell' is unknown"):
        _demand(tools=[{"type": "custom", "custom": {"name": "shell"}}])


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("tools: is 3: it must be a list", {"tools": 3}),
    ("tools[0].type: is 'shell'", {"tools": [{"type": "shell"}]}),
    ("tools[0].function: is None", {"tools": [{"type": "function"}]}),
    ("function.name: is 'a b'", {"tools": [{"type": "function", "function": {"name": "a b"}}]}),
    ("tools[2].function.name: is 'clock'", {"tools": [*TOOLS, TOOLS[1]]}),
    ("tool_choice: is 'any'", {"tools": TOOLS, "tool_choice": "any"}),
    ("tool_choice.type: is 'x'", {"tools": TOOLS, "tool_choice": {"type": "x"}}),
    ("tool_choice: asks for a call, but there are no", {"tool_choice": "required"}),
    ("tool_choice: asks for 'weather', which is none", {"tools": TOOLS[1:], "tool_choice": NAMED}),
    ("functions: is the old form of tools", {"tools": TOOLS, "functions": []}),
    ("function_call: is 'required'", {"functions": [CLOCK], "function_call": "required"}),
    ("response_format: is 'json'", {"response_format": "json"}),
    ("response_format.type: is 'xml'", {"response_format": {"type": "xml"}}),
    (
        "json_schema.schema: is None",
        {"response_format": {"type": "json_schema", "json_schema": {}}},
    ),
    (
        "response_format: contradicts tool_choice",
        {"tools": TOOLS, "tool_choice": NAMED, "response_format": {"type": "json_object"}},
    ),
]


@pytest.mark.parametrize(("reason", "request_"), WRONG)
def test_request_is_refused_with_the_field_that_is_wrong(
    reason: str, request_: dict[str, Any]
) -> None:
    with pytest.raises(BadField) as caught:
        _demand(**request_)
    assert reason in str(caught.value)


def test_tools_are_refused_when_the_format_has_none() -> None:
    with pytest.raises(BadField, match="tools: the chatglm2 format knows no tools"):
        _demand("chatglm2", tools=TOOLS)
    with pytest.raises(BadField, match="tools: the argument 'class' is no Python name"):
        odd = {"name": "f", "parameters": {"properties": {"class": {}}}}
        _demand("chatglm3", tools=[{"type": "function", "function": odd}], tool_choice="required")
