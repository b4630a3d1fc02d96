"""OpenAI's chat messages and the conversations that models read, each made from the other.

| OpenAI | conversation |
|---|---|
| system, developer | the system message, which comes first |
| assistant with content and tool_calls | the text, then each call |
| tool (or function) | the observation behind its call, whatever order the results came in |

Models answer one call at a time, so calls made together become call, result, call, result;
`ToolCall.id` and `ToolCall.is_together` remember what they were. A call of OpenAI's type `custom`,
whose input is plain text, is a call of a tool that takes text: ChatGLM3's `interpreter`, GLM-4's
`python`. What a format cannot say is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from glm_core.chat.formats import ChatFormat
from glm_core.chat.message import Message, Role, ToolCall
from glm_core.chat.tool_calls import UnreadableCall, looks_like_name, read_json_call
from glm_core.serve.openai.fields import BadField, list_of, mapping_of, text_of

ImageReader = Callable[[str], str]
"""Takes the address of a picture (often `data:...`), gives the text that stands for it."""
_SPEAKERS = ("system", "developer", "user", "assistant")


def chat_messages(
    data: Sequence[Any], format: ChatFormat, read_image: ImageReader | None = None
) -> list[Message]:
    """Returns the conversation that OpenAI's messages tell of.

    Args:
        data: `messages` of a request.
        format: the model's.
        read_image: for models with eyes.

    Raises:
        BadField: a message is malformed, or says what the format cannot say.
    """
    return _Reading(data, format, read_image).messages()


def openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Returns a conversation as OpenAI's messages; calls without an id get one.

    A text and the calls behind it are one message; so are calls made together.
    """
    told: list[dict[str, Any]] = []
    calls: list[tuple[Message, ToolCall]] = []
    for message in messages:
        if message.role == Role.observation:
            _, call = calls[-1] if calls else (message, ToolCall("", {}))
            told.append({"role": "tool", "tool_call_id": call.id, "content": message.content})
            continue
        if not message.tool_calls:
            heading = f"{message.name}\n" if message.name else ""  # a call nobody could read
            told.append({"role": message.role.value, "content": heading + message.content})
            continue
        index = len(calls)
        for call in message.tool_calls:
            named = call if call.id else replace(call, id=f"call_{index}")
            calls.append((message, named))
            _add_call(told, message, named)
    return told


def openai_call(call: ToolCall, content: str = "") -> dict[str, Any]:
    """Returns a call as OpenAI writes it.

    Args:
        call: a call with its id.
        content: how the model wrote it; kept where that is JSON of the same arguments.
    """
    if call.text:
        return {
            "id": call.id,
            "type": "custom",
            "custom": {"name": call.name, "input": call.text},
        }
    arguments = content if _is_json_of(content, call) else dumped(call.arguments)
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def dumped(value: Any) -> str:
    """Returns JSON as people read it."""
    return json.dumps(value, ensure_ascii=False)


class _Reading:
    """One pass over a request's messages."""

    def __init__(
        self, data: Sequence[Any], format: ChatFormat, read_image: ImageReader | None
    ) -> None:
        self._data = [mapping_of(one, f"messages[{index}]") for index, one in enumerate(data)]
        self._format = format
        self._read_image = read_image
        self._messages: list[Message] = []
        self._index = 0

    def messages(self) -> list[Message]:
        while self._index < len(self._data):
            where = f"messages[{self._index}]"
            message = self._data[self._index]
            role = message.get("role")
            self._index += 1
            if role in _SPEAKERS:
                self._speak(message, where)
            elif role in ("tool", "function"):
                raise BadField(where, "answers no call: results follow the assistant's tool_calls")
            else:
                known = ", ".join((*_SPEAKERS, "tool"))
                raise BadField(f"{where}.role", f"is {role!r}: it must be one of {known}")
        return self._messages

    def _speak(self, message: Mapping[str, Any], where: str) -> None:
        role = Role.system if message["role"] == "developer" else Role(message["role"])
        if message.get("name"):
            raise BadField(f"{where}.name", "the model cannot tell speakers apart: leave it away")
        calls = self._calls(message, where) if role == Role.assistant else []
        content = self._content(message, where, is_optional=role == Role.assistant)
        if role == Role.system and self._messages:
            raise BadField(
                where, "models read one system message, the first: join the system messages"
            )
        if content or not calls:
            self._messages.append(Message(role, content))
        if calls:
            results = self._results(calls, where)
            for call, told in zip(calls, results, strict=True):
                self._messages += [call, Message(Role.observation, told)]

    def _content(self, message: Mapping[str, Any], where: str, is_optional: bool) -> str:
        content = message.get("content")
        if content is None and is_optional:
            return text_of(message.get("refusal") or "", f"{where}.refusal")
        if isinstance(content, str):
            return text_of(content, f"{where}.content")
        if not isinstance(content, list):
            raise BadField(
                f"{where}.content", f"is {content!r}: it must be text or a list of parts"
            )
        parts = (self._part(one, f"{where}.content[{i}]") for i, one in enumerate(content))
        return "\n".join(parts)

    def _part(self, data: Any, where: str) -> str:
        part = mapping_of(data, where)
        kind = part.get("type")
        if kind in ("text", "refusal"):
            return text_of(part.get(kind), f"{where}.{kind}")
        if kind != "image_url":
            raise BadField(f"{where}.type", f"is {kind!r}: it must be text or image_url")
        image = part.get("image_url")
        url = text_of(image.get("url") if isinstance(image, Mapping) else image, f"{where}.url")
        if self._read_image is None:
            raise BadField(where, "this model has no eyes: send text, or use a model with vision")
        return self._read_image(url)

    def _calls(self, message: Mapping[str, Any], where: str) -> list[Message]:
        data = [
            (one, f"{where}.tool_calls[{i}]") for i, one in enumerate(_calls_of(message, where))
        ]
        legacy = message.get("function_call")
        if legacy is not None:
            data.append(({"id": "", "function": legacy}, f"{where}.function_call"))
        calls = [self._call(mapping_of(one, place), place) for one, place in data]
        ids = [call.tool_calls[0].id for call in calls]
        if len(set(ids)) < len(ids):
            raise BadField(f"{where}.tool_calls", "two calls have the same id")
        return [
            replace(call, tool_calls=(replace(call.tool_calls[0], is_together=index > 0),))
            for index, call in enumerate(calls)
        ]

    def _call(self, data: Mapping[str, Any], where: str) -> Message:
        is_text = data.get("type") == "custom"
        key = "custom" if is_text else "function"
        inner = mapping_of(data.get(key), f"{where}.{key}")
        call_id = text_of(data.get("id"), f"{where}.id")
        name = text_of(inner.get("name"), f"{where}.{key}.name")
        if not looks_like_name(name):
            raise BadField(f"{where}.{key}.name", f"is {name!r}: it must be letters, digits and _")
        field = "input" if is_text else "arguments"
        given = text_of(inner.get(field), f"{where}.{key}.{field}")
        if is_text and not given:
            raise BadField(f"{where}.{key}.{field}", "is empty: a tool that takes text needs some")
        try:
            if is_text:
                return self._format.write_call(ToolCall(name, {}, given, call_id))
            given = given if given.strip() else "{}"
            call = replace(read_json_call(name, given), id=call_id)
            return self._format.write_call(call, given)
        except ValueError as error:
            raise BadField(f"{where}.{key}.{field}", str(error)) from error

    def _results(self, calls: list[Message], where: str) -> list[str]:
        """Takes the results that follow; returns their texts in the order of the calls."""
        waiting = {call.tool_calls[0].id: call.name for call in calls}
        results: dict[str, str] = {}
        while self._index < len(self._data) and len(results) < len(waiting):
            data, place = self._data[self._index], f"messages[{self._index}]"
            if data.get("role") not in ("tool", "function"):
                break
            is_legacy = data["role"] == "function"
            call_id = (
                "" if is_legacy else text_of(data.get("tool_call_id"), f"{place}.tool_call_id")
            )
            if call_id not in waiting or call_id in results:
                raise BadField(
                    f"{place}.tool_call_id", f"{call_id!r} names no call without a result"
                )
            if data.get("name", waiting[call_id]) != waiting[call_id]:
                raise BadField(f"{place}.name", f"the call {call_id!r} is of {waiting[call_id]}")
            results[call_id] = self._content(data, place, is_optional=is_legacy)
            self._index += 1
        missing = [
            f"{call_id or name!r}" for call_id, name in waiting.items() if call_id not in results
        ]
        if missing:
            raise BadField(f"{where}.tool_calls", f"no result follows the call {missing[0]}")
        return [results[call_id] for call_id in waiting]


def _calls_of(message: Mapping[str, Any], where: str) -> list[Any]:
    calls = message.get("tool_calls")
    return [] if calls is None else list_of(calls, f"{where}.tool_calls")


def _add_call(told: list[dict[str, Any]], message: Message, call: ToolCall) -> None:
    data = openai_call(call, message.content)
    home = next((one for one in reversed(told) if one["role"] != "tool"), None)
    before = told[-1] if told else None
    follows_text = before is not None and before["role"] == "assistant"
    if home is not None and home["role"] == "assistant" and (call.is_together or follows_text):
        home.setdefault("tool_calls", []).append(data)
        return
    told.append({"role": "assistant", "content": None, "tool_calls": [data]})


def _is_json_of(content: str, call: ToolCall) -> bool:
    try:
        return read_json_call(call.name, content) == call
    except UnreadableCall:
        return False
