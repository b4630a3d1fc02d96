"""What is said in a conversation, whatever model it is held with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Tool = Mapping[str, Any]
"""What the model is told of a tool: `{"type": "function", "function": {name, description,
parameters}}`, the inner part alone, or `{"type": NAME}` for what the model knows by itself."""


class Role(StrEnum):
    """Who speaks."""

    system = "system"
    user = "user"
    assistant = "assistant"
    observation = "observation"
    """What a tool answered."""


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants to use. Nothing in it was executed."""

    name: str
    arguments: Mapping[str, Any]
    """JSON values by parameter; empty for a tool that takes plain text."""
    text: str = ""
    """For a tool that takes plain text: code to run, a picture's description, ..."""
    id: str = field(default="", compare=False)
    """What the result of the call refers to it by, outside the model; no model reads it."""
    is_together: bool = field(default=False, compare=False)
    """Whether it was made in one answer with the call before it; no model reads it."""


@dataclass(frozen=True)
class Message:
    """One message."""

    role: Role
    content: str
    """As the model reads or wrote it."""
    name: str = ""
    """What follows the role in the message's first line: the tool that the assistant calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    fault: str = ""
    """Why a tool call could not be read; the raw call is `content`."""
    is_cut: bool = False
    """Whether the answer was stopped before its end."""

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; what has its default is left out."""
        data: dict[str, Any] = {"role": self.role.value, "content": self.content}
        if self.name:
            data["name"] = self.name
        if self.tool_calls:
            data["tool_calls"] = [_call_data(call) for call in self.tool_calls]
        if self.fault:
            data["fault"] = self.fault
        if self.is_cut:
            data["is_cut"] = True
        return data

    @classmethod
    def from_dict(cls, data: Any) -> Message:
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a message is {type(data).__name__}: it must be an object")
        roles = [role.value for role in Role]
        if data.get("role") not in roles:
            raise ValueError(
                f"a message's role is {data.get('role')!r}: it must be one of {', '.join(roles)}"
            )
        texts = {name: data.get(name, "") for name in ("content", "name", "fault")}
        for name, value in texts.items():
            if not isinstance(value, str):
                raise ValueError(f"a message's {name} is {value!r}: it must be text")
        calls = data.get("tool_calls", [])
        if not isinstance(calls, list):
            raise ValueError(f"a message's tool_calls are {calls!r}: they must be a list")
        is_cut = data.get("is_cut") is True
        return cls(
            Role(data["role"]), tool_calls=tuple(map(_call_of, calls)), is_cut=is_cut, **texts
        )


def check_conversation(messages: Sequence[Message]) -> None:
    """Checks who speaks after whom: system first, if at all; the model's answers in between.

    Raises:
        ValueError: the order is another one.
    """
    before: Role | None = None
    for index, message in enumerate(messages):
        if not _may_follow(message.role, before):
            raise ValueError(
                f"message {index + 1} of the conversation is from {message.role} after "
                f"{before or 'nobody'}: system comes first, user and observation take turns with "
                "assistant, and observation answers an assistant"
            )
        before = message.role


def exchanges(messages: Sequence[Message]) -> list[list[Message]]:
    """Cuts a conversation without its system message into turns that each begin with a user."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == Role.user or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _may_follow(role: Role, before: Role | None) -> bool:
    if role == Role.system:
        return before is None
    if role == Role.user:
        return before in (None, Role.system, Role.assistant)
    if role == Role.observation:
        return before == Role.assistant
    return before in (Role.user, Role.observation, Role.assistant)


def _call_data(call: ToolCall) -> dict[str, Any]:
    data: dict[str, Any] = {"name": call.name, "arguments": dict(call.arguments)}
    if call.text:
        data["text"] = call.text
    if call.id:
        data["id"] = call.id
    if call.is_together:
        data["is_together"] = True
    return data


def _call_of(data: Any) -> ToolCall:
    known = isinstance(data, dict) and isinstance(data.get("arguments"), dict)
    texts = ("name", "text", "id")
    if not known or not all(isinstance(data.get(key, ""), str) for key in texts):
        raise ValueError(f"a tool call is {data!r}: it must have a name and arguments")
    name, text, call_id = (data.get(key, "") for key in texts)
    return ToolCall(name, data["arguments"], text, call_id, data.get("is_together") is True)
