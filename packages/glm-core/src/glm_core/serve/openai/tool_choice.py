"""What a request's tools, `tool_choice` and `response_format` ask of the model.

| tool_choice | |
|---|---|
| none | the model is not told of the tools |
| auto | it writes what it likes; what it wrote is read |
| required, or a tool by name | the answer begins with the call, and a grammar writes it |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_core.chat.call_syntax import CallSyntax, lark_text
from glm_core.chat.formats import ChatFormat
from glm_core.chat.message import Tool
from glm_core.chat.roles import INTERPRETER
from glm_core.chat.tool_calls import looks_like_name
from glm_core.infer.grammar import Grammar, JsonObject, JsonSchema, Lark, Regex
from glm_core.serve.openai.fields import BadField, list_of, mapping_of, text_of
from glm_core.tokenizer.protocol import Tokenizer


@dataclass(frozen=True)
class Demand:
    """What an answer must be."""

    tools: tuple[Tool, ...] = ()
    """For `ChatFormat.encode` and `ChatFormat.reader`."""
    opening: tuple[str, ...] = ()
    """How the answer begins: texts that are encoded apart, follow the prompt, and are pushed to
    the `AnswerTranslator` first."""
    grammar: Grammar | None = None
    """What follows the opening."""
    is_legacy: bool = False
    """Whether the request has `functions`: its answer has a `function_call`."""
    parallel: bool = True
    """Whether one answer may make several calls."""

    @property
    def opening_text(self) -> str:
        return "".join(self.opening)

    def opening_ids(self, tokenizer: Tokenizer) -> list[int]:
        """Returns the tokens that the prompt is continued with."""
        return [token for text in self.opening for token in tokenizer.encode(text)]


def demand_of(request: Mapping[str, Any], format: ChatFormat) -> Demand:
    """Returns what a chat request demands.

    Args:
        request: its `tools`, `tool_choice`, `parallel_tool_calls` and `response_format`, or
            `functions` and `function_call`.
        format: the model's.

    Raises:
        BadField: one of them is malformed, they contradict each other, or the format cannot do it.
    """
    is_legacy = request.get("functions") is not None
    tools, choice = _legacy(request) if is_legacy else _given(request)
    told = _told(tools, "functions" if is_legacy else "tools")
    parallel = request.get("parallel_tool_calls") is not False
    answer = response_grammar(request.get("response_format"))
    if choice == "none" or (not told and choice in (None, "auto")):
        has_head = answer is not None and format.text_head
        head = (format.text_head,) if has_head else ()
        return Demand((), head, answer, is_legacy, parallel)
    shown = _for(format, told)
    if choice in (None, "auto"):
        if answer is None:
            return Demand(shown, (), None, is_legacy, parallel)
        if not isinstance(answer, JsonSchema | JsonObject):
            raise BadField("response_format", "must be JSON where tools may be called instead")
        syntaxes = _syntaxes(format, _functions(told))
        grammar = Lark(_either(syntaxes, (format.text_head, answer)))
        return Demand(shown, (), grammar, is_legacy, parallel=False)
    if answer is not None:
        raise BadField("response_format", "contradicts tool_choice: leave one of them away")
    wanted = _wanted(choice, told, "function_call" if is_legacy else "tool_choice")
    opening, forced = _forced(_syntaxes(format, wanted))
    return Demand(shown, opening, forced, is_legacy, parallel=False)


def response_grammar(data: Any) -> Grammar | None:
    """Returns the grammar of a `response_format`; None for text.

    `{"type": "regex", "pattern": ...}` and `{"type": "lark", "grammar": ...}` are ours.

    Raises:
        BadField: it is none that is known.
    """
    if data is None:
        return None
    kind = mapping_of(data, "response_format").get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return JsonObject()
    if kind == "regex":
        return Regex(text_of(data.get("pattern"), "response_format.pattern"))
    if kind == "lark":
        return Lark(text_of(data.get("grammar"), "response_format.grammar"))
    if kind != "json_schema":
        known = "text, json_object, json_schema, regex or lark"
        raise BadField("response_format.type", f"is {kind!r}: it must be {known}")
    where = "response_format.json_schema"
    schema = mapping_of(data.get("json_schema"), where).get("schema")
    return JsonSchema(mapping_of(schema, f"{where}.schema"))


def _given(request: Mapping[str, Any]) -> tuple[list[Any], Any]:
    tools = request.get("tools")
    choice = request.get("tool_choice")
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        if kind not in ("function", "custom"):
            raise BadField("tool_choice.type", f"is {kind!r}: it must be function or custom")
        inner = mapping_of(choice.get(kind), f"tool_choice.{kind}")
        choice = {"name": text_of(inner.get("name"), f"tool_choice.{kind}.name")}
    elif choice not in (None, "none", "auto", "required"):
        raise BadField(
            "tool_choice", f"is {choice!r}: it must be none, auto, required or name a tool"
        )
    return list_of([] if tools is None else tools, "tools"), choice


def _legacy(request: Mapping[str, Any]) -> tuple[list[Any], Any]:
    if request.get("tools") is not None:
        raise BadField("functions", "is the old form of tools: leave one of them away")
    functions = list_of(request["functions"], "functions")
    choice = request.get("function_call")
    if isinstance(choice, Mapping):
        choice = {"name": text_of(choice.get("name"), "function_call.name")}
    elif choice not in (None, "none", "auto"):
        raise BadField("function_call", f"is {choice!r}: it must be none, auto or name a function")
    return [{"type": "function", "function": one} for one in functions], choice


def _told(tools: Sequence[Any], field: str) -> tuple[Tool, ...]:
    """Returns the tools as chat formats take them; `strict` is for us, not for the model."""
    told: list[Tool] = []
    names: set[str] = set()
    for index, data in enumerate(tools):
        where = f"{field}[{index}]"
        tool = mapping_of(data, where)
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            raise BadField(f"{where}.type", f"is {kind!r}: it must be function or custom")
        inner = mapping_of(tool.get(kind), f"{where}.{kind}")
        name = text_of(inner.get("name"), f"{where}.{kind}.name")
        if not looks_like_name(name) or name in names:
            raise BadField(
                f"{where}.{kind}.name",
                f"is {name!r}: it must be letters, digits and _, and no other tool's",
            )
        names.add(name)
        if inner.get("parameters") is not None:
            mapping_of(inner["parameters"], f"{where}.{kind}.parameters")
        kept = {key: value for key, value in inner.items() if key != "strict" and value is not None}
        told.append({"type": kind, kind: kept} if kind == "function" else {"type": name})
    return tuple(told)


def _for(format: ChatFormat, told: Sequence[Tool]) -> tuple[Tool, ...]:
    """Returns what the format is told: ChatGLM3 knows its interpreter without."""
    known = tuple(tool for tool in told if tool["type"] != INTERPRETER)
    try:
        format.reader(known)
    except ValueError as error:
        raise BadField("tools", str(error)) from error
    return known


def _functions(told: Sequence[Tool]) -> list[Tool]:
    return [tool["function"] for tool in told if tool["type"] == "function"]


def _wanted(choice: Any, told: Sequence[Tool], field: str) -> list[Tool]:
    functions = _functions(told)
    if choice == "required":
        if not functions:
            raise BadField(field, "asks for a call, but there are no functions to call")
        return functions
    wanted = [function for function in functions if function["name"] == choice["name"]]
    if not wanted:
        raise BadField(field, f"asks for {choice['name']!r}, which is none of the functions")
    return wanted


def _syntaxes(format: ChatFormat, functions: Sequence[Tool]) -> list[CallSyntax]:
    try:
        return [
            format.call_syntax(function, f"f{index}_") for index, function in enumerate(functions)
        ]
    except ValueError as error:
        raise BadField("tools", str(error)) from error


def _forced(syntaxes: Sequence[CallSyntax]) -> tuple[tuple[str, ...], Grammar]:
    if len(syntaxes) > 1:
        return (), Lark(_either(syntaxes))
    (one,) = syntaxes
    opening = (one.head, one.opening) if one.opening else (one.head,)
    return opening, Lark(f"start: {one.rule}\n{one.rules}")


def _either(
    syntaxes: Sequence[CallSyntax], answer: tuple[str, JsonSchema | JsonObject] | None = None
) -> str:
    """Returns the grammar of one call or another, or of an answer behind its head.

    A space may stand where an encoded text would begin: SentencePiece puts one there.
    """
    starts = [f'{lark_text(one.head)} " "? {lark_text(one.opening)} {one.rule}' for one in syntaxes]
    rules = "".join(one.rules for one in syntaxes)
    if answer is not None:
        head, grammar = answer
        schema = grammar.schema if isinstance(grammar, JsonSchema) else {"type": "object"}
        starts.append(f'{lark_text(head)} " "? answer')
        rules += f"answer: %json {json.dumps(schema)}\n"
    return f'start: " "? ({" | ".join(starts)})\n{rules}'
