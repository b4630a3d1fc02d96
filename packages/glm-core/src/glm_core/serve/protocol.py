"""HTTP/1.1 of uvicorn, with limits on how slow a client may be."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from glm_core.serve.errors import ApiError, retry_after

Protocol = type[H11Protocol]


def protocol_class(
    max_connections: int, header_timeout_s: float, send_timeout_s: float
) -> Protocol:
    """Returns the protocol for a server.

    Args:
        max_connections: open at a time; more are refused.
        header_timeout_s: seconds from the first byte of a request (of the first one: from the
            connection on) within which its headers must have come.
        send_timeout_s: seconds that a client may leave an answer unread.
    """

    class Limited(_Limited):
        MAX_CONNECTIONS = max_connections
        HEADER_TIMEOUT_S = header_timeout_s
        SEND_TIMEOUT_S = send_timeout_s

    return Limited


class _Limited(H11Protocol):
    MAX_CONNECTIONS = 0
    HEADER_TIMEOUT_S = 0.0
    SEND_TIMEOUT_S = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.MAX_CONNECTIONS:
            told = f"{self.MAX_CONNECTIONS} connections are open: ask again later"
            self._refuse(ApiError(503, told, "too_many_connections", headers=retry_after(1)))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading_clock()
        self._stop_writing_clock()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_reading_clock()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self.SEND_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_writing_clock()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "this is no HTTP/1.1 request", "invalid_http"))

    @property
    def _must_hurry(self) -> bool:
        """Whether headers are on their way, or the rest of a body that was refused."""
        if self.cycle is None:
            return True
        if self.conn.their_state is h11.IDLE:
            return bool(self.conn.trailing_data[0])
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _watch(self) -> None:
        """Starts or stops the clock."""
        if not self._must_hurry:
            self._stop_reading_clock()
        elif self._reading is None and not self.transport.is_closing():
            self._reading = self.loop.call_later(self.HEADER_TIMEOUT_S, self._is_late)

    def _stop_reading_clock(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None

    def _stop_writing_clock(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        self._writing = None

    def _is_late(self) -> None:
        self._reading = None
        if not self.transport.is_closing():
            told = f"the headers took longer than {self.HEADER_TIMEOUT_S:g} seconds"
            self._refuse(ApiError(408, told, "request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Answers what never became a request, and hangs up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = bytes(error.response({}).body)
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(content))),
                ("Connection", "close"),
                *error.headers.items(),
            ]
            response = h11.Response(status_code=error.status, headers=headers)
            for event in (response, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
