"""`POST /api/chat`: conversations, translated to OpenAI's and back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.serve.fields import Lenient, seed_of, stops_of, validated
from codegeex.serve.ollama.schema import OllamaRequest, check_images, figures, now, served_of
from glm_core.serve.openai.chat import Chat, begin_chat
from glm_core.serve.openai.schema import ChatRequest
from glm_core.serve.sse import LineStream, line, while_connected

router = APIRouter()
_SAME = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")
"""Options that OpenAI's API calls the same."""


class OllamaMessage(Lenient):
    """One message."""

    role: str
    content: str | None = None
    images: list[Any] | None = Field(None, description="None: these models have no eyes")
    tool_calls: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_name: str | None = None


class ChatBody(OllamaRequest):
    """A conversation."""

    messages: Annotated[list[OllamaMessage], Field(fail_fast=True)]
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None


@router.post("/api/chat", summary="Answer a conversation (Ollama)")
async def ollama_chat(body: ChatBody, request: Request) -> Response:
    if not body.messages:
        served_of(request, body.model)
        told = {"role": "assistant", "content": ""}
        last = {"message": told, "done": True, "done_reason": "load"}
        return JSONResponse({"model": body.model, "created_at": now()} | last)
    return await (await Conversation.begun(body, request)).response(request)


class Conversation:
    """One conversation while it is answered.

    Args:
        chat: in the engine.
        name: of the model, as the request has it.
        is_stream: whether the answer is sent while it comes.
        as_text: whether it is told as that of /api/generate.
    """

    def __init__(self, chat: Chat, name: str, is_stream: bool, as_text: bool) -> None:
        self._chat, self._name = chat, name
        self._is_stream, self._as_text = is_stream, as_text
        self._reason = "stop"

    @classmethod
    async def begun(cls, body: ChatBody, request: Request, as_text: bool = False) -> Conversation:
        """Hands a conversation to the engine.

        Raises: as core's `begin_chat`.
        """
        asked = openai_body(body, served_of(request, body.model).name)
        chat = await begin_chat(validated(ChatRequest, asked), request)
        return cls(chat, body.model, body.stream, as_text)

    async def response(self, request: Request) -> Response:
        """Sends the answer."""
        if self._is_stream:
            return await LineStream.begun(request, self._stream())
        return JSONResponse(await while_connected(request, self._whole()))

    async def _whole(self) -> dict[str, Any]:
        content, calls = "", []
        async with aclosing(self._messages()) as messages:
            async for message in messages:
                content += message["content"]
                calls += message.get("tool_calls", [])
        message = {"content": content} | ({"tool_calls": calls} if calls else {})
        return self._told(message) | await self._end()

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._messages()) as messages:
            async for message in messages:
                yield line(self._told(message) | {"done": False})
        yield line(self._told({"content": ""}) | await self._end())

    async def _messages(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yields parts of the answer; calls are whole."""
        calls: dict[int, dict[str, Any]] = {}
        async with aclosing(self._chat.parts()) as parts:
            async for part in parts:
                delta, reason = part["delta"], part["finish_reason"]
                for call in delta.get("tool_calls", ()):
                    function = call["function"]
                    known = calls.setdefault(call["index"], {"name": "", "arguments": ""})
                    known["name"] += function.get("name", "")
                    known["arguments"] += function.get("arguments", "")
                if delta.get("content"):
                    yield {"content": delta["content"]}
                if reason is not None:
                    self._reason = "length" if reason == "length" else "stop"
        if calls:
            yield {"content": "", "tool_calls": [_call(call) for call in calls.values()]}

    def _told(self, message: dict[str, Any]) -> dict[str, Any]:
        head = {"model": self._name, "created_at": now()}
        if self._as_text:
            return head | {"response": message["content"]}
        return head | {"message": {"role": "assistant"} | message}

    async def _end(self) -> dict[str, Any]:
        usage, timings = await self._chat.usage(), self._chat.timings
        told = {"done": True, "done_reason": self._reason}
        return told if timings is None else told | figures(usage, timings)


def openai_body(body: ChatBody, model: str) -> dict[str, Any]:
    """Returns the same request as OpenAI's."""
    options = body.options
    asked: dict[str, Any] = {
        "model": model,
        "messages": openai_messages(body.messages),
        "max_tokens": options.num_predict if (options.num_predict or 0) > 0 else None,
        "top_k": max(options.top_k or 0, 0) or None,
        "seed": seed_of(options.seed),
        "stop": list(stops_of(options.stop)) or None,
        "repetition_penalty": options.repeat_penalty or None,
        "tools": body.tools or None,
        "response_format": _format(body.format),
    }
    return asked | {name: getattr(options, name) for name in _SAME}


def openai_messages(messages: Sequence[OllamaMessage]) -> list[dict[str, Any]]:
    """Returns messages as OpenAI's; results belong to the calls before them, in their order."""
    told: list[dict[str, Any]] = []
    waiting: list[str] = []
    for index, message in enumerate(messages):
        check_images(message.images)
        if message.role == "tool":
            call_id = waiting.pop(0) if waiting else ""
            content = message.content or ""
            told.append({"role": "tool", "tool_call_id": call_id, "content": content})
            continue
        calls = [
            _openai_call(call, f"call_{index}_{i}")
            for i, call in enumerate(message.tool_calls or ())
        ]
        waiting = [call["id"] for call in calls]
        said: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        told.append(said | ({"tool_calls": calls} if calls else {}))
    return told


def _openai_call(call: dict[str, Any], call_id: str) -> dict[str, Any]:
    function = call.get("function")
    function = dict(function) if isinstance(function, dict) else {}
    arguments = function.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    told = {"name": function.get("name"), "arguments": arguments}
    return {"id": call_id, "type": "function", "function": told}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    return {"function": {"name": call["name"], "arguments": json.loads(call["arguments"] or "{}")}}


def _format(format: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not format:
        return None
    if isinstance(format, dict):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": format}}
    return {"type": "json_object" if format == "json" else format}
