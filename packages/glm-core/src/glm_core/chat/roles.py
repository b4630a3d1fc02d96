"""ChatGLM3-6B and GLM-4-9B: messages headed by a role token, tools and all.

Every message is `<|role|>{name}\n{content}`. First line and content are encoded apart, so that
each begins as the tokenizer begins a text.

Sources: tokenization_chatglm.py of ChatGLM3-6B (`build_single_message`, `build_chat_input`) and of
GLM-4-9B-chat (`apply_chat_template`); THUDM/ChatGLM3 composite_demo/conversation.py and PROMPT.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from glm_core.chat.call_syntax import (
    CallSyntax,
    fenced,
    json_syntax,
    python_call,
    python_syntax,
    written,
)
from glm_core.chat.glm4_tools import BUILT_IN, HEADING, JSON_PLEASE, WHO_YOU_ARE
from glm_core.chat.message import Message, Role, Tool, ToolCall, check_conversation
from glm_core.chat.reader import AnswerReader, CallReader, HeadedReader
from glm_core.chat.tool_calls import (
    check_arguments,
    function_of,
    read_json_call,
    read_python_call,
    read_text_call,
)
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import GMASK, SOP

INTERPRETER = "interpreter"
"""The name under which ChatGLM3 writes code to be run."""
TOOLS_TEXT = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)


class ToolDialect(StrEnum):
    """How ChatGLM3's system message lists tools. The released code has two ways."""

    indented = "indented"
    """JSON over many lines: the tokenizer's `build_chat_input`."""
    compact = "compact"
    """JSON on one line: composite_demo."""


@dataclass(frozen=True)
class ChatGLM3:
    """ChatGLM3-6B."""

    tool_dialect: ToolDialect = ToolDialect.indented
    temperature: float = 0.8
    top_p: float = 0.8
    text_head: str = "\n"
    stop: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        is_default = self.tool_dialect == ToolDialect.indented
        return "chatglm3" if is_default else f"chatglm3-{self.tool_dialect.value}"

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, tools: Sequence[Tool] = ()
    ) -> list[int]:
        if tools:
            messages = self._with_tools(messages, tools)
        return encode_headed(messages, tokenizer)

    def marks(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        return (role_id(tokenizer, Role.assistant),)

    def reader(self, tools: Sequence[Tool] = ()) -> AnswerReader:
        readers: dict[str, CallReader] = {INTERPRETER: partial(read_text_call, INTERPRETER)}
        for tool in tools:
            function = _function(tool, self.name)
            readers[function["name"]] = partial(_call_of, function, read_python_call)
        return HeadedReader(readers)

    def write_call(self, call: ToolCall, json_text: str = "") -> Message:
        if call.text:
            return written(call, fenced(call.text), read_text_call, self.name)
        return written(call, python_call(call.arguments), read_python_call, self.name)

    def call_syntax(self, function: Mapping[str, Any], prefix: str = "") -> CallSyntax:
        return python_syntax(function, prefix)

    def _with_tools(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
        functions = [_function(tool, self.name) for tool in tools]
        indent = 4 if self.tool_dialect == ToolDialect.indented else None
        listing = json.dumps(functions, indent=indent, ensure_ascii=False)
        system, rest = split_system(messages)
        return [Message(Role.system, f"{system or TOOLS_TEXT}\n{listing}"), *rest]


@dataclass(frozen=True)
class GLM4:
    """GLM-4-9B-chat."""

    name: str = "glm4"
    temperature: float = 0.8
    top_p: float = 0.8
    text_head: str = "\n"
    stop: tuple[str, ...] = ()

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, tools: Sequence[Tool] = ()
    ) -> list[int]:
        check_conversation(messages)
        # The template passes over what is empty, and tells of the tools before the system prompt.
        # A tool may well answer nothing: without that observation the call would stand unanswered.
        kept = [message for message in messages if message.content or _is_observation(message)]
        if tools:
            kept.insert(0, Message(Role.system, tools_text(tools)))
        return _frame(kept, tokenizer)

    def marks(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        return (role_id(tokenizer, Role.assistant),)

    def reader(self, tools: Sequence[Tool] = ()) -> AnswerReader:
        readers: dict[str, CallReader] = {}
        for tool in tools:
            function = function_of(tool)
            if function is None:
                readers[_built_in(tool)] = partial(read_text_call, tool["type"])
            else:
                readers[function["name"]] = partial(_call_of, function, read_json_call)
        return HeadedReader(readers)

    def write_call(self, call: ToolCall, json_text: str = "") -> Message:
        if not call.text:
            content = json_text or json.dumps(call.arguments, ensure_ascii=False)
            return written(call, content, read_json_call, self.name)
        is_bare = read_text_call(call.name, call.text).text == call.text
        content = call.text if is_bare else fenced(call.text)
        return written(call, content, read_text_call, self.name)

    def call_syntax(self, function: Mapping[str, Any], prefix: str = "") -> CallSyntax:
        return json_syntax(function, prefix)


def _is_observation(message: Message) -> bool:
    return message.role == Role.observation


def tools_text(tools: Sequence[Tool]) -> str:
    """Returns what GLM-4 is told of its tools."""
    text = WHO_YOU_ARE + HEADING
    for tool in tools:
        function = function_of(tool)
        if function is None:
            text += f"\n\n## {_built_in(tool)}\n\n{BUILT_IN[tool['type']]}"
        else:
            listing = json.dumps(function, indent=4, ensure_ascii=False)
            text += f"\n\n## {function['name']}\n\n{listing}\n{JSON_PLEASE}"
    return text


def encode_headed(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of a conversation, up to the role token of the answer.

    Raises:
        ValueError: the messages are in no order that the format knows.
    """
    check_conversation(messages)
    return _frame(messages, tokenizer)


def _frame(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    if not messages or messages[-1].role not in (Role.user, Role.observation):
        raise ValueError(
            "the conversation must end with a user's message or an observation to be answered"
        )
    ids = [tokenizer.token_id(GMASK), tokenizer.token_id(SOP)]
    for message in messages:
        ids.append(role_id(tokenizer, message.role))
        ids += tokenizer.encode(f"{message.name}\n")
        ids += tokenizer.encode(message.content)
    return [*ids, role_id(tokenizer, Role.assistant)]


def role_id(tokenizer: Tokenizer, role: Role) -> int:
    """Returns the token that begins a message.

    Raises:
        ValueError: the tokenizer has none.
    """
    name = f"<|{role.value}|>"
    if not tokenizer.has(name):
        raise ValueError(
            f"the {tokenizer.kind} tokenizer has no {name}, with which the chatglm3 and glm4 "
            "formats begin a message: use the format that the model was tuned on (--format)"
        )
    return tokenizer.token_id(name)


def split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Returns the system prompt, empty without one, and the other messages."""
    if messages and messages[0].role == Role.system:
        return messages[0].content, list(messages[1:])
    return "", list(messages)


def _function(tool: Tool, name: str) -> Tool:
    function = function_of(tool)
    if function is None:
        raise ValueError(
            f"the {name} format has no built-in tool {tool['type']!r}: describe a function, or use "
            "a model of the glm4 format (ChatGLM3's code interpreter needs no tool)"
        )
    return function


def _built_in(tool: Tool) -> str:
    kind = tool["type"]
    if kind not in BUILT_IN:
        raise ValueError(f"built-in tool {kind!r} is unknown: choose one of {', '.join(BUILT_IN)}")
    return str(kind)


def _call_of(function: Tool, read: Callable[[str, str], ToolCall], content: str) -> ToolCall:
    call = read(function["name"], content)
    check_arguments(call, function)
    return call
