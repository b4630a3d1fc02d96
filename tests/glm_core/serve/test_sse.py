"""Streams: what is sent when an answer fails, and when the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from glm_core.infer.engine import EngineBusy
from glm_core.serve.errors import ApiError, ClientLeft, ErrorShapes
from glm_core.serve.sse import DONE, EventStream, LineStream, event, line, while_connected

Sent = list[Message]


class _Connection:
    """A client that leaves when it is told to."""

    def __init__(self) -> None:
        self.sent: Sent = []
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def request(self) -> Request:
        return Request({"type": "http"}, self.receive)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def _run(test: Callable[[_Connection], Any]) -> Any:
    async def started() -> Any:
        return await asyncio.wait_for(test(_Connection()), 10)

    return asyncio.run(started())


def test_event_is_one_line_of_json() -> None:
    data = {"text": "a\n\nb\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", "name": "北京"}
    told = event(data)
    assert told.startswith(b"data: ") and told.endswith(b"\n\n")
    assert told.decode().splitlines()[1:] == [""]
    assert json.loads(told[6:]) == data


def test_events_are_sent_as_they_come() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        yield DONE

    async def test(connection: _Connection) -> None:
        stream = await EventStream.begun(connection.request, events())
        await stream({"type": "http"}, connection.receive, connection.send)
        start, *bodies = connection.sent
        assert start["status"] == 200
        headers = dict(start["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert b"content-length" not in headers
        assert [body["body"] for body in bodies] == [b"data: 1\n\n", DONE, b""]

    _run(test)


def test_failure_has_a_status_of_its_own_when_nothing_was_sent() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        raise EngineBusy("full", 1)
        yield b""

    async def test(connection: _Connection) -> None:
        with pytest.raises(EngineBusy):
            await EventStream.begun(connection.request, events())

    _run(test)


def test_failure_is_an_event_when_the_answer_has_begun() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        raise KeyError("secret")

    async def test(connection: _Connection) -> None:
        stream = await EventStream.begun(connection.request, events())
        await stream({"type": "http"}, connection.receive, connection.send)
        last = connection.body.split(b"\n\n")[-2]
        assert json.loads(last[6:])["error"]["code"] == "internal_error"
        assert b"secret" not in connection.body and DONE not in connection.body

    _run(test)


@pytest.mark.parametrize("num_sent", [0, 1])
def test_events_are_closed_when_the_client_leaves(num_sent: int) -> None:
    async def test(connection: _Connection) -> None:
        closed = asyncio.Event()

        async def events() -> AsyncGenerator[bytes, None]:
            try:
                for _ in range(num_sent):
                    yield b"data: 1\n\n"
                connection.gone.set()
                await asyncio.Event().wait()
            finally:
                closed.set()

        if num_sent == 0:
            with pytest.raises(ClientLeft):
                await EventStream.begun(connection.request, events())
        else:
            stream = await EventStream.begun(connection.request, events())
            await stream({"type": "http"}, connection.receive, connection.send)
        assert closed.is_set()

    _run(test)


def test_work_is_cancelled_when_the_client_leaves_or_the_server_does() -> None:
    async def test(connection: _Connection) -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("ended")

        task = asyncio.ensure_future(while_connected(connection.request, work()))
        await asyncio.sleep(0)
        connection.gone.set()
        with pytest.raises(ClientLeft):
            await task
        connection.gone.clear()
        task = asyncio.ensure_future(while_connected(connection.request, work()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["ended", "ended"]

    _run(test)


def test_result_comes_when_the_client_stays() -> None:
    async def test(connection: _Connection) -> Any:
        return await while_connected(connection.request, asyncio.sleep(0, "done"))

    assert _run(test) == "done"


def test_lines_are_sent_and_failures_told_in_the_protocols_own_words() -> None:
    async def lines() -> AsyncGenerator[bytes, None]:
        yield line({"text": "a\nb"})
        raise EngineBusy("full", 1)

    def told(error: ApiError) -> tuple[int, Any]:
        return error.status, {"error": error.message}

    async def test(connection: _Connection) -> None:
        stream = await LineStream.begun(connection.request, lines())
        app = ErrorShapes(stream, {"/api/": told})
        await app({"type": "http", "path": "/api/x"}, connection.receive, connection.send)
        headers = dict(connection.sent[0]["headers"])
        assert headers[b"content-type"].startswith(b"application/x-ndjson")
        first, second, rest = connection.body.split(b"\n")
        assert json.loads(first) == {"text": "a\nb"} and rest == b""
        assert "too many requests" in json.loads(second)["error"]

    _run(test)
