"""Answers over HTTP while they come: the one place that streams and that sees clients leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any, Self, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from glm_core.serve.errors import ClientLeft, api_error

Result = TypeVar("Result")
DONE = b"data: [DONE]\n\n"
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_LINE_BREAKS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
"""Those beyond ASCII; JSON itself escapes the others."""
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def one_line(data: Any) -> bytes:
    """Returns JSON without anything that some reader of lines takes for the end of one."""
    text = _ENCODE(data)
    return (text if text.isascii() else text.translate(_LINE_BREAKS)).encode()


def event(data: Any) -> bytes:
    """Returns one server-sent event."""
    return b"data: %b\n\n" % one_line(data)


def line(data: Any) -> bytes:
    """Returns one line of a stream of JSON."""
    return b"%b\n" % one_line(data)


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Does the work unless the client leaves, which cancels it within the same moment.

    Raises:
        ClientLeft: it has left.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        left.cancel()
        await _ended(task)


class EventStream(Response):
    """Server-sent events, made while they are sent; all that are ready go in one write.

    The first event is waited for before the status is sent: what fails at once is answered with
    its own status. What fails later is told in an event, without the `[DONE]` of a whole answer.

    Args:
        events: each a whole event; closed when the client leaves.
    """

    media_type = "text/event-stream"
    framed = staticmethod(event)
    """How data is written; here, what has failed."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._first: bytes | None = None

    @classmethod
    async def begun(cls, request: Request, events: AsyncGenerator[bytes, None]) -> Self:
        """Waits for the first event.

        Raises:
            ClientLeft: the client has left before it came.
        """
        stream = cls(events)
        try:
            stream._first = await while_connected(request, anext(events))
        except BaseException:
            await events.aclose()
            raise
        return stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        sending = asyncio.ensure_future(self._send(scope, send))
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, left}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            left.cancel()
            await _ended(sending)

    async def _send(self, scope: Scope, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                if self._first is not None:
                    await send(_body(self._first))
                async for one in events:
                    await send(_body(one))
            except Exception as error:
                await send(_body(self.framed(api_error(error).told(scope)[1])))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class LineStream(EventStream):
    """The same as lines of JSON, without server-sent events around them (NDJSON)."""

    media_type = "application/x-ndjson"
    framed = staticmethod(line)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _ended(task: asyncio.Future[Any]) -> None:
    """Cancels a task and waits until it is over."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # has been told already, or is the client's no more


def _body(content: bytes) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": True}
