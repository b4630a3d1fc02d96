"""Tool calls in what a model wrote, read without ever executing any of it.

A model's text is input from outside: it may hold anything. Only literals are read; everything
else is refused with a reason.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from glm_core.chat.message import Tool, ToolCall

_MAX_CHARS, _MAX_DEPTH, _MAX_BITS = 65536, 32, 1024
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")


class UnreadableCall(ValueError):
    """What the model wrote is no call; the message is the reason, for a person."""


def looks_like_name(text: str) -> bool:
    """Whether a text could be the name of a tool."""
    return _NAME.fullmatch(text) is not None


def function_of(tool: Tool) -> Mapping[str, Any] | None:
    """Returns name, description and parameters of a tool; None for one that has none of its own.

    Raises:
        ValueError: the tool is not described as one.
    """
    if "function" not in tool and set(tool) == {"type"}:
        return None
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not looks_like_name(name):
        raise ValueError(
            f"a tool is described by {tool!r}: it must have a name of letters, digits and _, as "
            'in {"name": "get_weather", "description": ..., "parameters": {...}}'
        )
    assert isinstance(function, Mapping)
    return function


def read_python_call(name: str, content: str) -> ToolCall:
    """Reads ChatGLM3's form: a fenced block that holds `tool_call(name=literal, ...)`.

    Raises:
        UnreadableCall: it is anything else.
    """
    _check_size(content)
    code = unfenced(content)
    if code is None:
        raise UnreadableCall("the call is not one fenced block (or its fence is not closed)")
    call = _parsed(code)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise UnreadableCall("the block is not a call of tool_call")
    if call.func.id != "tool_call":
        raise UnreadableCall(f"the block calls {call.func.id}, not tool_call")
    if call.args:
        raise UnreadableCall("an argument has no name")
    arguments: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise UnreadableCall("arguments are unpacked with **")
        if keyword.arg in arguments:
            raise UnreadableCall(f"the argument {keyword.arg} is given twice")
        arguments[keyword.arg] = _read_literal(keyword.value, keyword.arg)
    _check_json(arguments)
    return ToolCall(name, arguments)


def read_json_call(name: str, content: str) -> ToolCall:
    """Reads GLM-4's form: one JSON object of arguments.

    Raises:
        UnreadableCall: it is anything else.
    """
    _check_size(content)
    try:
        arguments = json.loads(content, parse_constant=_refuse_constant)
    except UnreadableCall:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableCall(f"the arguments are not JSON ({_line(error)})") from error
    if not isinstance(arguments, dict):
        raise UnreadableCall(f"the arguments are a JSON {type(arguments).__name__}, no object")
    _check_json(arguments)
    return ToolCall(name, arguments)


def read_text_call(name: str, content: str) -> ToolCall:
    """Reads the call of a tool that takes plain text: code, with or without a fence around it."""
    code = unfenced(content)
    return ToolCall(name, {}, content.strip() if code is None else code)


def check_arguments(call: ToolCall, function: Mapping[str, Any]) -> None:
    """Checks a call against the parameters that the tool was described with.

    Raises:
        UnreadableCall: a required argument is missing, or one has a name that is not there.
    """
    schema = function.get("parameters")
    if not isinstance(schema, Mapping):
        return
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    missing = [name for name in names if name not in call.arguments]
    if missing:
        raise UnreadableCall(f"the argument {missing[0]} of {call.name} is missing")
    known = schema.get("properties")
    unknown = [name for name in call.arguments if isinstance(known, Mapping) and name not in known]
    if unknown and not schema.get("additionalProperties"):
        raise UnreadableCall(f"{call.name} has no argument {unknown[0]}")


def unfenced(content: str) -> str | None:
    """Returns what stands between the opening and the closing fence of a text, or None."""
    lines = content.strip().split("\n")
    if len(lines) < 2 or not lines[0].startswith("```") or not lines[-1].endswith("```"):
        return None
    last = lines[-1].removesuffix("```")
    return "\n".join([*lines[1:-1], last] if last.strip() else lines[1:-1])


def _parsed(code: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a wrong escape in a string is the model's affair
            return ast.parse(code.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableCall(f"the call is not valid Python ({_line(error)})") from error


def _read_literal(node: ast.expr, name: str) -> Any:
    try:
        return _literal(node, name)
    except (RecursionError, TypeError) as error:  # TypeError: a key that cannot be one
        raise UnreadableCall(f"the argument {name} is no literal") from error


def _literal(node: ast.expr, name: str) -> Any:
    """Returns the value that an expression writes down; tuples become lists, as JSON has none."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = node.operand.value if isinstance(node.operand, ast.Constant) else None
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item, name) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        return dict(zip(keys, [_literal(value, name) for value in node.values], strict=True))
    raise UnreadableCall(f"the argument {name} is no literal but a {type(node).__name__}")


def _check_json(value: Any, depth: int = _MAX_DEPTH) -> None:
    """Refuses what JSON has not, and what nobody could store or show."""
    if depth == 0:
        raise UnreadableCall("the arguments are nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UnreadableCall("an argument has a key that is no text")
            _check_json(key, depth - 1)
            _check_json(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UnreadableCall("an argument is not a finite number")
    elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise UnreadableCall(f"an argument is a number of more than {_MAX_BITS} bits")
    elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise UnreadableCall("an argument holds half a character")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise UnreadableCall(f"an argument is a {type(value).__name__}, which JSON has not")


def _check_size(content: str) -> None:
    if len(content) > _MAX_CHARS:
        raise UnreadableCall(f"the call has {len(content)} characters, more than {_MAX_CHARS}")


def _refuse_constant(text: str) -> Any:
    raise UnreadableCall(f"the arguments hold {text}, which is not JSON")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
