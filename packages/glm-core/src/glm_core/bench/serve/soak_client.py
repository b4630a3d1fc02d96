"""One request at a time over a connection of its own, perhaps abandoned on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 120.0
"""After so long an answer counts as lost."""
Answer = tuple[tuple[object, ...], ...]
"""What two answers to the same request have in common: for each choice its parts' texts and why it
ended."""


@dataclass(frozen=True)
class Leave:
    """When a client goes away."""

    share_sent: float = 1.0
    """Of the request's bytes, sent before."""
    after_s: float = 0.0
    """Seconds that it still waits then."""
    is_rude: bool = False
    """Whether the connection is reset instead of closed."""


@dataclass(frozen=True)
class Reply:
    """A whole response."""

    status: int
    headers: bytes
    content: bytes

    @property
    def error_code(self) -> str:
        """`code` of an error in OpenAI's shape, in the answer or in a stream; empty if none."""
        for data in _events(self.content) if self.is_stream else [self.content]:
            with contextlib.suppress(ValueError):
                found = json.loads(data)
                if isinstance(found, dict) and isinstance(found.get("error"), dict):
                    return str(found["error"].get("code") or "unnamed")
        return ""

    @property
    def retry_after_s(self) -> float | None:
        """When to ask again; None if the server does not tell."""
        found = re.search(rb"\nretry-after: (\d+)", self.headers)
        return None if found is None else float(found[1])

    @property
    def is_stream(self) -> bool:
        return b"text/event-stream" in self.headers

    def answer(self) -> Answer:
        """Returns what it says.

        Raises:
            ValueError: it is no whole answer.
        """
        if not self.is_stream:
            return _whole_answer(json.loads(self.content))
        events = _events(self.content)
        if not events or events[-1] != b"[DONE]":
            raise ValueError("a stream without end")
        return _streamed_answer([json.loads(data) for data in events[:-1]])


async def exchange(url: str, request: bytes, leave: Leave | None = None) -> Reply | None:
    """Sends a request and reads the answer; None when the client went away before its end.

    Raises:
        ValueError: what came is no whole HTTP response.
        TimeoutError: it takes too long.
        OSError: the connection broke.
    """
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        if leave is None:
            writer.write(request)
            return _reply(await asyncio.wait_for(reader.read(), TIMEOUT_S))
        writer.write(request[: int(len(request) * leave.share_sent)])
        with contextlib.suppress(TimeoutError):
            return _reply(await asyncio.wait_for(reader.read(), leave.after_s))
        return None
    finally:
        if leave is not None and leave.is_rude:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _reply(received: bytes) -> Reply:
    top, separator, body = received.partition(b"\r\n\r\n")
    if not separator or not top.startswith(b"HTTP/1.1 "):
        raise ValueError(f"no HTTP response: {received[:100]!r}")
    headers = top.lower()
    if b"transfer-encoding: chunked" in headers:
        body = _unchunked(body)
    return Reply(int(top[9:12]), headers, body)


def _unchunked(body: bytes) -> bytes:
    """The content of chunks.

    Raises:
        ValueError: the last one is missing.
    """
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\r\n", at)
        if end < 0:
            raise ValueError("the response is cut off")
        size = int(body[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def _events(content: bytes) -> list[bytes]:
    parts = content.split(b"\n\n")
    return [part.removeprefix(b"data: ") for part in parts if part.startswith(b"data: ")]


def _whole_answer(reply: dict[str, Any]) -> Answer:
    if "data" in reply:
        return tuple((one["index"], tuple(one["embedding"])) for one in reply["data"])
    choices = sorted(reply["choices"], key=lambda choice: choice["index"])
    return tuple((_texts(choice), choice["finish_reason"]) for choice in choices)


def _texts(choice: dict[str, Any]) -> tuple[str, ...]:
    """The texts of a choice's blanks, or its only text."""
    if choice.get("blanks"):
        return tuple(blank["text"] for blank in choice["blanks"])
    return (choice["message"]["content"] if "message" in choice else choice["text"],)


def _streamed_answer(chunks: list[dict[str, Any]]) -> Answer:
    texts: dict[int, dict[int, str]] = {}
    reasons: dict[int, str] = {}
    for choice in (one for chunk in chunks for one in chunk["choices"]):
        said = choice["delta"].get("content") if "delta" in choice else choice["text"]
        blanks = texts.setdefault(choice["index"], {})
        blank = choice.get("blank", 0)
        blanks[blank] = blanks.get(blank, "") + (said or "")
        reasons[choice["index"]] = choice["finish_reason"] or reasons.get(choice["index"], "")
    return tuple(
        (tuple(blanks[blank] for blank in sorted(blanks)), reasons[index])
        for index, blanks in sorted(texts.items())
    )
