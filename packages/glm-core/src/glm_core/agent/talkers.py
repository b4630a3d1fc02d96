"""Who an agent talks with: a model in this process, or one behind an OpenAI-compatible URL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from glm_core.chat.message import Message, Role, Tool, ToolCall
from glm_core.chat.session import ChatSession, Reply
from glm_core.chat.tool_calls import UnreadableCall, read_json_call
from glm_core.extras import require


@dataclass(frozen=True)
class WantedCall:
    """A call that the model wrote."""

    call: ToolCall
    fault: str = ""
    """Why it could not be read."""


class Talker(Protocol):
    """A conversation that an agent leads."""

    calls: Sequence[WantedCall]
    """What the last answer asks for, in order."""
    is_cut: bool
    """Whether the last answer did not come to its end."""

    def ask(self, text: str, tools: Sequence[Tool]) -> Iterator[str]:
        """Says something; gives the answer's text as it comes."""
        ...

    def observe(self, results: Sequence[str], tools: Sequence[Tool]) -> Iterator[str]:
        """Gives the results of `calls`; without tools the model must answer in words."""
        ...


class SessionTalker:
    """Talks through a ChatSession, whose own tools are left as they are.

    Args:
        session: the conversation.
    """

    def __init__(self, session: ChatSession) -> None:
        self.calls: Sequence[WantedCall] = ()
        self.is_cut = False
        self._session = session

    def ask(self, text: str, tools: Sequence[Tool]) -> Iterator[str]:
        with_tools = tuple(tools)
        yield from self._answered(lambda: self._session.ask(text), with_tools)

    def observe(self, results: Sequence[str], tools: Sequence[Tool]) -> Iterator[str]:
        messages = self._session.messages
        messages[:] = taking_turns(messages, results[:-1])
        yield from self._answered(lambda: self._session.observe(results[-1]), tuple(tools))

    def _answered(self, begin: Any, tools: tuple[Tool, ...]) -> Iterator[str]:
        session, before = self._session, self._session.tools
        session.configure(session.system, tools)
        try:
            reply: Reply = begin()
            yield from reply
        finally:
            session.configure(session.system, before)
        self.calls = [one for message in reply.messages for one in _wanted(message)]
        self.is_cut = any(message.is_cut for message in reply.messages)


def taking_turns(messages: Sequence[Message], results: Sequence[str]) -> list[Message]:
    """Returns a conversation in which the last answer's calls but one have their results.

    Models read call, result, call, result; what the answer says behind its last call is dropped.

    Args:
        messages: the conversation, with an answer of `len(results) + 1` calls at its end.
        results: of the calls but the last.
    """
    turned = list(messages)
    while not _wanted(turned[-1]):
        turned.pop()
    places = [index for index, message in enumerate(turned) if _wanted(message)]
    for place, result in reversed(list(zip(places[-len(results) - 1 : -1], results, strict=True))):
        turned.insert(place + 1, Message(Role.observation, result))
    return turned


class ServerRefused(RuntimeError):
    """The server answered with an error.

    Args:
        url: that was asked.
        status: of HTTP.
        text: the answer.
        retry_after: when to ask again, as the server said.
    """

    def __init__(self, url: str, status: int, text: str, retry_after: str = "") -> None:
        super().__init__(f"{url} answers {status}: {text[:500]}")
        self.status = status
        self.text = text
        self.retry_after = retry_after


class OpenAITalker:
    """Talks with a server through its `/chat/completions`.

    Args:
        url: the address up to and with `/v1`.
        model: its name there.
        api_key: sent as a bearer token; empty for none.
        system: the system prompt; empty for none.
        timeout_s: seconds without a sign of life.
        options: further fields of each request, such as `temperature`.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str = "",
        system: str = "",
        timeout_s: float = 300.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.calls: Sequence[WantedCall] = ()
        self.is_cut = False
        self.messages: list[dict[str, Any]] = []
        if system:
            self.messages.append({"role": "system", "content": system})
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s
        self._request: dict[str, Any] = {**(options or {}), "model": model, "stream": True}
        self._tools: list[Tool] = []

    def ask(self, text: str, tools: Sequence[Tool]) -> Iterator[str]:
        self._tools = [_openai_tool(one) for one in tools]
        yield from self._answered([{"role": "user", "content": text}], bool(tools))

    def observe(self, results: Sequence[str], tools: Sequence[Tool]) -> Iterator[str]:
        told = [
            {"role": "tool", "tool_call_id": wanted.call.id, "content": result}
            for wanted, result in zip(self.calls, results, strict=True)
        ]
        yield from self._answered(told, bool(tools))

    def _answered(self, said: list[dict[str, Any]], may_call: bool) -> Iterator[str]:
        request = self._request | {"messages": [*self.messages, *said]}
        if self._tools:
            request |= {"tools": self._tools, "tool_choice": "auto" if may_call else "none"}
        content, calls, reason = "", _Calls(), None
        for choice in self._choices(request):
            delta = choice.get("delta") or {}
            text = delta.get("content") or ""
            calls.add(delta.get("tool_calls") or ())
            content, reason = content + text, choice.get("finish_reason") or reason
            yield text
        self.calls, told = calls.wanted(), calls.told()
        self.is_cut = reason == "length"
        answer: dict[str, Any] = {"role": "assistant", "content": content}
        if told:
            answer |= {"content": content or None, "tool_calls": told}
        self.messages += [*said, answer]

    def _choices(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        httpx2 = require("httpx2", extra="agent")
        timeout = httpx2.Timeout(self._timeout_s)
        with httpx2.Client(headers=self._headers, timeout=timeout) as client:
            with client.stream("POST", self._url, json=request) as response:
                if response.status_code != 200:
                    text = response.read().decode("utf-8", "replace")
                    seconds = response.headers.get("retry-after", "")
                    raise ServerRefused(self._url, response.status_code, text, seconds)
                for line in response.iter_lines():
                    data = line.removeprefix("data:").strip()
                    if not line.startswith("data:") or data == "[DONE]":
                        continue
                    event = json.loads(data)
                    if "error" in event:
                        raise RuntimeError(f"{self._url} breaks off: {event['error']}")
                    yield from event.get("choices") or ()


class _Calls:
    """Puts the deltas of calls together."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, deltas: Sequence[Mapping[str, Any]]) -> None:
        for delta in deltas:
            call = self._calls.setdefault(delta.get("index", 0), dict.fromkeys(_PARTS, ""))
            inner = delta.get("custom") or delta.get("function") or {}
            call["id"] += delta.get("id") or ""
            for key in ("name", "arguments", "input"):
                call[key] += inner.get(key) or ""

    def wanted(self) -> list[WantedCall]:
        return [_wanted_of(self._calls[index]) for index in sorted(self._calls)]

    def told(self) -> list[dict[str, Any]]:
        """The calls as the next request tells them; servers refuse arguments that are no JSON."""
        told: list[dict[str, Any]] = []
        for wanted in self.wanted():
            call = wanted.call
            inner: dict[str, Any] = {"name": call.name}
            if call.text:
                inner["input"] = call.text
                told.append({"id": call.id, "type": "custom", "custom": inner})
            else:
                inner["arguments"] = json.dumps(call.arguments, ensure_ascii=False)
                told.append({"id": call.id, "type": "function", "function": inner})
        return told


_PARTS = ("id", "name", "arguments", "input")


def _wanted_of(call: Mapping[str, str]) -> WantedCall:
    if call["input"]:
        return WantedCall(ToolCall(call["name"], {}, call["input"], call["id"]))
    try:
        read = read_json_call(call["name"], call["arguments"] or "{}")
    except UnreadableCall as error:
        return WantedCall(ToolCall(call["name"], {}, id=call["id"]), str(error))
    return WantedCall(replace(read, id=call["id"]))


def _wanted(message: Message) -> list[WantedCall]:
    if message.fault:
        return [WantedCall(ToolCall(message.name, {}), message.fault)]
    return [WantedCall(call) for call in message.tool_calls]


def _openai_tool(tool: Tool) -> Tool:
    if "function" in tool:
        return tool
    return {"type": "custom", "custom": {"name": tool["type"]}}
