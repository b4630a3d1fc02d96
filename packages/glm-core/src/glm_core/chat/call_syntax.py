"""Tool calls as models write them: text for a call that was made, grammars for one to come.

ChatGLM3 writes a fenced `tool_call(name="value", ...)`, GLM-4 a JSON object. A grammar is written
in llguidance's dialect of Lark. GLM-4's holds the whole JSON schema. ChatGLM3's holds names,
types, enums, required arguments, lists and nested objects; of a schema's other rules (patterns,
ranges, lengths, `allOf`) it knows nothing.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glm_core.chat.message import Message, Role, ToolCall
from glm_core.chat.tool_calls import UnreadableCall

FENCE = "```"
OPENING = f"{FENCE}python\ntool_call("
CLOSING = f")\n{FENCE}"
_LITERALS = r"""
%(P)sSTRING: /"([^"\\\x00-\x1f]|\\["\\nrt])*"/
%(P)sINTEGER: /-?(0|[1-9][0-9]{0,17})/
%(P)sNUMBER: /-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/
%(p)sboolean: "True" | "False"
%(p)slist: "[" (%(p)sany (", " %(p)sany)*)? "]"
%(p)sobject: "{" (%(p)sitem (", " %(p)sitem)*)? "}"
%(p)sitem: %(P)sSTRING ": " %(p)sany
%(p)sany: %(P)sSTRING | %(P)sNUMBER | %(p)sboolean | "None" | %(p)slist | %(p)sobject
"""
_SPACING = {
    "x-guidance": {
        "whitespace_flexible": False,  # or a weak model could write white space for ever
        "item_separator": ", ",
        "key_separator": ": ",
    }
}
_SIMPLE = {
    "string": "STRING",
    "integer": "INTEGER",
    "number": "NUMBER",
    "boolean": "boolean",
    "array": "list",
    "object": "object",
}


@dataclass(frozen=True)
class CallSyntax:
    """How a model writes calls of one function: first line, opening, and what a grammar decides."""

    head: str
    """The message's first line, which names the function. Encoded apart from what follows."""
    opening: str
    """How every call begins; may be empty."""
    rule: str
    """The grammar's rule of what follows the opening, to the end of the message."""
    rules: str
    """All of its rules, in Lark."""


def fenced(code: str) -> str:
    """Returns code between fences."""
    return f"{FENCE}python\n{code}\n{FENCE}"


def python_call(arguments: Mapping[str, Any]) -> str:
    """Returns a call as ChatGLM3 writes it. Source: PROMPT.md of ChatGLM3."""
    listing = ", ".join(f"{name}={python_literal(value)}" for name, value in arguments.items())
    return fenced(f"tool_call({listing})")


def python_literal(value: Any) -> str:
    """Returns a JSON value as Python writes it, texts in double quotes."""
    if isinstance(value, Mapping):
        pairs = (f"{python_literal(key)}: {python_literal(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(python_literal, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # each of its escapes is Python's too
    return repr(value)


def written(
    call: ToolCall, content: str, read: Callable[[str, str], ToolCall], format_name: str
) -> Message:
    """Returns the message of a call, read back to be sure that nothing was lost.

    Raises:
        ValueError: what `read` reads in the content is another call, or none.
    """
    try:
        reason = "" if read(call.name, content) == call else "it would be read as another call"
    except UnreadableCall as error:
        reason = str(error)
    if reason:
        raise ValueError(
            f"the {format_name} format cannot write this call of {call.name}: {reason}"
        )
    return Message(Role.assistant, content, call.name, (call,))


def json_syntax(function: Mapping[str, Any], prefix: str) -> CallSyntax:
    """Returns how GLM-4 calls a function."""
    parameters = function.get("parameters") or {"type": "object"}
    schema = json.dumps({**parameters, **_SPACING})
    rule = f"{prefix}call"
    return CallSyntax(f"{function['name']}\n", "", rule, f"{rule}: %json {schema}\n")


def python_syntax(function: Mapping[str, Any], prefix: str) -> CallSyntax:
    """Returns how ChatGLM3 calls a function.

    Raises:
        ValueError: an argument has a name that Python cannot write, or a reference in the schema
            leads nowhere.
    """
    writer = _PythonRules(function.get("parameters") or {}, prefix)
    rule = writer.call()
    return CallSyntax(f"{function['name']}\n", OPENING, rule, writer.text())


class _PythonRules:
    """Makes Lark rules for Python literals of a JSON schema."""

    def __init__(self, schema: Mapping[str, Any], prefix: str) -> None:
        self._schema = schema
        self._prefix = prefix
        self._rules: dict[str, str] = {}
        self._references: dict[str, str] = {}

    def call(self) -> str:
        properties = self._schema.get("properties") or {}
        for name in properties:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(
                    f"the argument {name!r} is no Python name, and ChatGLM3 writes calls in "
                    "Python: rename it, or use a model of the glm4 format"
                )
        arguments = self._members(self._schema, lambda name: f"{name}=")
        return self._add(f"{arguments} {lark_text(CLOSING)}")

    def text(self) -> str:
        rules = "".join(f"{name}: {body}\n" for name, body in self._rules.items())
        return rules + _LITERALS.lstrip() % {"p": self._prefix, "P": self._prefix.upper()}

    def _add(self, body: str) -> str:
        name = f"{self._prefix}r{len(self._rules)}"
        self._rules[name] = body
        return name

    def _value(self, schema: Any) -> str:
        """Returns the rule of a value."""
        if not isinstance(schema, Mapping):
            return f"{self._prefix}any"
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema:
            return self._add(lark_text(python_literal(schema["const"])))
        if "enum" in schema:
            return self._add(" | ".join(lark_text(python_literal(one)) for one in schema["enum"]))
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            return self._add(" | ".join(map(self._value, choices)))
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._add(" | ".join(self._value({**schema, "type": one}) for one in kind))
        return self._typed(kind, schema)

    def _typed(self, kind: Any, schema: Mapping[str, Any]) -> str:
        if kind == "null":
            return self._add('"None"')
        if kind == "array" and "items" in schema:
            item = self._value(schema["items"])
            return self._add(f'"[" ({item} (", " {item})*)? "]"')
        if kind == "object" and schema.get("properties"):
            members = self._members(schema, lambda name: f"{python_literal(name)}: ")
            return self._add(f'"{{" {members} "}}"')
        if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            item = (
                f'{self._prefix.upper()}STRING ": " {self._value(schema["additionalProperties"])}'
            )
            return self._add(f'"{{" ({item} (", " {item})*)? "}}"')
        name = _SIMPLE.get(kind, "any")
        return f"{self._prefix.upper() if name.isupper() else self._prefix}{name}"

    def _members(self, schema: Mapping[str, Any], label: Callable[[str], str]) -> str:
        """Returns the rule of named values in the schema's order, optional ones or not.

        `first` is the rule of what may come while nothing is written yet, `later` of what may
        come behind a value; both are built from the last value to the first.
        """
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        first = later = self._add('""')
        for name in reversed(list(properties)):
            value = f"{lark_text(label(name))} {self._value(properties[name])}"
            is_optional = name not in required
            first = self._add(f"{value} {later}" + (f" | {first}" if is_optional else ""))
            follows = f'", " {value}'
            later = self._add(f"({follows})? {later}" if is_optional else f"{follows} {later}")
        return first

    def _reference(self, target: str) -> str:
        if target not in self._references:
            node: Any = self._schema
            for key in target.removeprefix("#").strip("/").split("/") if target != "#" else ():
                node = node.get(key) if isinstance(node, Mapping) else None
            if node is None or not target.startswith("#"):
                raise ValueError(f"the parameters refer to {target!r}, which is not in them")
            name = f"{self._prefix}ref{len(self._references)}"
            self._references[target] = name
            self._rules[name] = self._value(node)
        return self._references[target]


def lark_text(text: str) -> str:
    """Returns a text as Lark writes it."""
    return json.dumps(text, ensure_ascii=False)
